document.getElementById("theme").onclick = () => {
  const set = document.documentElement.style.colorScheme;
  const dark = set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
};
