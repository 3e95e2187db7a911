"use strict";
const $ = (id) => document.getElementById(id);
const run = JSON.parse($("run").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const pair = (term, value, ...more) =>
  make("div", {}, make("dt", {}, term), value instanceof Node ? value : make("dd", {}, value, ...more));

const links = (seed) =>
  seed.downloads.map(([text, href, name]) => make("a", { href, download: name, title: name }, text));

// ---- the head of the page ------------------------------------------------------------------

document.title = run.title;
$("origin").textContent = run.origin;
$("title").textContent = run.title;
$("facts").textContent = run.facts;
$("command").firstElementChild.textContent = run.command;
$("scores").append(...run.scores.map(([name, value, note]) => pair(name, value, make("small", {}, note))));
$("settings").append(...Object.entries(run.settings).map(([name, value]) => pair(name, value)));

$("command").lastElementChild.onclick = async ({ currentTarget: button }) => {
  getSelection().selectAllChildren($("command").firstElementChild);
  const copied = await navigator.clipboard?.writeText(run.command).then(() => true, () => false);
  button.textContent = copied ? "Copied" : "Selected";
};
if (!run.command) $("command").remove();
if (run.picture) $("picture").firstElementChild.src = run.picture;
$("picture").hidden = !run.picture;

// ---- the grid ------------------------------------------------------------------------------

const large = $("large");
const tiles = run.seeds.map(makeTile); // {seed, element, video, turning, visible}
let order = [...tiles];

function makeTile(seed) {
  const element = $("tile").content.firstElementChild.cloneNode(true);
  const video = element.querySelector("video");
  const tile = { seed, element, video, turning: !calm, visible: false };
  const open = element.querySelector(".open");
  video.muted = true; // what the attribute says, for those browsers that ask the property
  if (seed.video) video.src = seed.video;
  if (seed.poster) video.poster = seed.poster;
  if (seed.beside) Object.assign(video.nextElementSibling, { src: seed.beside, hidden: false });
  open.setAttribute("aria-label", `Seed ${seed.seed}: large view`);
  open.onclick = () => show(tile);
  element.querySelector(".stop").onclick = () => turn(tile, !tile.turning);
  element.querySelector("b").textContent = `Seed ${seed.seed}`;
  writeDiversity(element.querySelector(".diversity"), seed.diversity);
  writeVerdict(element.querySelector(".verdict"), seed);
  element.querySelector(".downloads").append(...links(seed));
  for (const kind of ["keydown", "keyup"])
    open.addEventListener(kind, (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      if (kind === "keydown" && !event.repeat) turn(tile, !tile.turning);
    });
  return tile;
}

function writeVerdict(element, seed) {
  element.textContent = seed.verdict;
  element.classList.toggle("yes", seed.good);
  return element;
}

function writeDiversity(element, value) {
  if (value === null) return element.remove();
  const [meter, number] = element.children;
  meter.max = Math.max(...run.seeds.map((seed) => seed.diversity));
  meter.value = value;
  meter.ariaLabel = "diversity";
  number.textContent = value.toFixed(2);
  element.title = "diversity: mean distance to the other seeds";
}

function turn(tile, turning) {
  tile.turning = turning;
  const name = turning ? "Stop" : "Turn";
  const button = tile.element.querySelector(".stop");
  button.textContent = turning ? "❚❚" : "▶";
  button.title = `${name} (Space)`;
  button.setAttribute("aria-label", `${name} seed ${tile.seed.seed}`);
  if (turning && tile.visible && !large.open) tile.video.play().catch(() => {});
  else tile.video.pause();
  $("turn").textContent = tiles.some((other) => other.turning) ? "Stop all" : "Turn all";
}

$("turn").onclick = () => {
  const turning = !tiles.some((tile) => tile.turning);
  tiles.forEach((tile) => turn(tile, turning));
};

const SORTS = {
  seed: (a, b) => a.seed.seed - b.seed.seed,
  diversity: (a, b) => (b.seed.diversity ?? 0) - (a.seed.diversity ?? 0),
  fidelity: (a, b) => b.seed.rank - a.seed.rank || SORTS.diversity(a, b),
};

function sort() {
  order = [...tiles].sort(SORTS[$("sort").value]);
  $("grid").append(...order.map((tile) => tile.element));
}
$("sort").lastElementChild.textContent = run.order;
$("sort").onchange = sort;
sort();
tiles.forEach((tile) => turn(tile, tile.turning));

const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const tile = tiles.find((other) => other.element === entry.target);
    tile.visible = entry.isIntersecting;
    turn(tile, tile.turning);
  }
});
tiles.forEach((tile) => watch.observe(tile.element));

// As many columns as there is room for, the seeds spread evenly over the rows that this makes.
const paired = run.seeds.some((seed) => seed.beside);
const [least, widest] = paired ? [320, 700] : [210, 400];

function arrange() {
  const gap = parseFloat(getComputedStyle($("grid")).columnGap);
  const room = Math.floor(($("grid").clientWidth + gap) / (least + gap));
  const most = Math.max(room, paired ? 1 : 2);
  const rows = Math.ceil(tiles.length / most);
  $("grid").style.setProperty("--columns", Math.max(Math.ceil(tiles.length / rows), 1));
  $("grid").style.setProperty("--widest", `${widest}px`);
}
arrange();
new ResizeObserver(arrange).observe($("grid"));

const focus = (tile) => tile.element.querySelector(".open").focus();

document.addEventListener("keydown", (event) => {
  if (large.open || event.altKey || event.ctrlKey || event.metaKey) return;
  const at = order.findIndex((tile) => tile.element.contains(document.activeElement));
  const top = order[0]?.element.offsetTop;
  const columns = order.filter((tile) => tile.element.offsetTop === top).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const step = steps[event.key];
  if (!step || (at < 0 && (document.activeElement !== document.body || Math.abs(step) > 1))) return;
  const next = order[at < 0 ? 0 : at + step];
  if (!next) return;
  event.preventDefault();
  focus(next);
});

// ---- the large view ------------------------------------------------------------------------

let current = null; // the tile that is shown
const models = new Map(); // seed -> promise of the URLs of its GLB, as it is and as clay
const arrived = new Map(); // seed -> what to call with its packed GLB
let viewer = null; // promise that <model-viewer> is known

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream);
}

// What mesh.js beside each mesh.glb calls: a page from disk may run scripts, but not read files.
window.galleryModel = (seed, packed) => arrived.get(seed)?.(packed);

function modelUrls(seed) {
  if (!models.has(seed.seed)) models.set(seed.seed, loadModel(seed));
  return models.get(seed.seed);
}

async function loadModel(seed) {
  const packed = await new Promise((resolve, reject) => {
    if (seed.packed) return resolve(seed.packed);
    arrived.set(seed.seed, resolve);
    document.head.append(make("script", { src: seed.model, onerror: () => reject(Error(seed.model)) }));
  });
  const data = await (await unpack(packed)).arrayBuffer();
  return [[data], asClay(data)].map((parts) => URL.createObjectURL(new Blob(parts)));
}

// Parts of the same GLB in one grey, every triangle flat: only the JSON at its start changes.
function asClay(data) {
  const length = new DataView(data).getUint32(12, true);
  const gltf = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 20, length)));
  const colour = { baseColorFactor: [0.2, 0.2, 0.2, 1], metallicFactor: 0, roughnessFactor: 1 };
  gltf.materials = [{ pbrMetallicRoughness: colour }];
  for (const part of gltf.meshes.flatMap((mesh) => mesh.primitives)) {
    const { POSITION } = part.attributes;
    Object.assign(part, { material: 0, attributes: { POSITION } });
  }
  const text = new TextEncoder().encode(JSON.stringify(gltf));
  const padding = new Uint8Array(-text.length & 3).fill(32);
  const rest = data.slice(20 + length), json = text.length + padding.length;
  const head = new Uint32Array([0x46546c67, 2, 20 + json + rest.byteLength, json, 0x4e4f534a]);
  return [head, text, padding, rest];
}

async function loadViewer() {
  const source = await (await unpack($("viewer").textContent)).text();
  document.head.append(make("script", { textContent: source }));
  await customElements.whenDefined("model-viewer");
}

// A new one for each seed: it drops its model soon after it has left the page.
function makeModel(tile, url, what) {
  const element = make("model-viewer");
  const attributes = {
    src: url, alt: `Seed ${tile.seed.seed} of ${run.title}${what}`,
    "camera-controls": "", "touch-action": "none", "interaction-prompt": "none",
    "camera-orbit": "25deg 72deg auto", "min-field-of-view": "12deg", "interpolation-decay": "90",
    "shadow-intensity": "0.7", "shadow-softness": "0.9", exposure: "1.05",
    "auto-rotate-delay": "1500", "rotation-per-second": "24deg",
  };
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (!calm) element.setAttribute("auto-rotate", "");
  // Either may come late, when another seed is shown.
  element.addEventListener("load", () => {
    if (element.isConnected) $("hint").textContent = "drag to turn · scroll or pinch for near and far";
  });
  element.addEventListener("error", () => {
    if (element.isConnected) showVideo(tile, "the model cannot be drawn here");
  });
  return element;
}

function showVideo(tile, why) {
  if (!tile.seed.video) return void ($("hint").textContent = tile.seed.verdict);
  const video = make("video", { src: tile.seed.video, muted: true, loop: true, autoplay: !calm, controls: calm });
  $("model").replaceChildren(video);
  $("hint").textContent = why;
}

// Two models turn as one: as that which was touched last.
function together(pair) {
  let leader = pair[0];
  for (const one of pair)
    for (const kind of ["pointerdown", "wheel"])
      one.addEventListener(kind, () => (leader = one), { capture: true, passive: true });
  const follow = () => {
    if (!leader.isConnected) return;
    for (const other of pair)
      if (other !== leader && leader.loaded && other.loaded) {
        other.resetTurntableRotation(leader.turntableRotation);
        other.cameraOrbit = `${leader.getCameraOrbit()}`;
        other.fieldOfView = `${leader.getFieldOfView()}deg`;
        other.jumpCameraToGoal();
      }
    requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
}

async function show(tile) {
  current = tile;
  const seed = tile.seed;
  $("name").textContent = `Seed ${seed.seed}`;
  const rows = seed.details.map(([name, value]) => pair(name, value));
  if (seed.verdict) rows.unshift(pair("fidelity", writeVerdict(make("dd"), seed)));
  $("details").replaceChildren(...rows);
  large.querySelector(".downloads").replaceChildren(...links(seed));
  $("views").replaceChildren(...seed.views.map(viewButton));
  $("clay").replaceChildren(...seed.clay.map(viewButton));
  $("model").replaceChildren();
  if (!large.open) large.showModal();
  tiles.forEach((other) => turn(other, other.turning));
  if (!seed.model && !seed.packed) return showVideo(tile, "there is no mesh on this page");
  $("hint").textContent = "loading …";
  try {
    viewer ??= loadViewer();
    const [[url, clay]] = await Promise.all([modelUrls(seed), viewer]);
    if (current !== tile || !large.open) return;
    const pair = [makeModel(tile, url, ""), makeModel(tile, clay, ", as clay")];
    $("model").replaceChildren(...pair);
    together(pair);
  } catch {
    if (current === tile) showVideo(tile, "the model cannot be loaded");
  }
}

function viewButton([src, azimuth]) {
  const title = `From ${azimuth} degrees`;
  const onclick = () => {
    for (const element of document.querySelectorAll("model-viewer")) {
      element.resetTurntableRotation(0);
      element.setAttribute("camera-orbit", `${azimuth}deg 70deg auto`);
    }
  };
  return make("button", { type: "button", title, onclick }, make("img", { src, alt: title }));
}

function move(step) {
  const at = order.indexOf(current) + step;
  show(order[(at + order.length) % order.length]);
}

$("previous").onclick = () => move(-1);
$("next").onclick = () => move(1);

function clear() {
  $("model").replaceChildren();
  tiles.forEach((tile) => turn(tile, tile.turning));
}

function shut() {
  large.close();
  clear();
  focus(current); // not where the large view was opened from
}

$("close").onclick = shut;
large.onclick = (event) => event.target === large && shut(); // beside it
large.oncancel = (event) => {
  event.preventDefault();
  shut();
};
large.onclose = () => large.open || clear(); // a browser may close it without asking

// Before the model, which would turn by the arrow keys once it was dragged.
large.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  move(step);
}, true);
