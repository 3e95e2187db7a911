"""What pyproject.toml says of the wheel, and the workflow that builds it."""

import re
import tomllib

import pytest
import yaml
from programs import ROOT

TOLD = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TOLD["project"]
VERSIONS = ["3.11", "3.12", "3.13"]


def test_the_readme_of_an_index_has_no_links_into_a_clone():
    """And no picture of one, which would be a broken one there; all else stays."""
    text = whole = (ROOT / "README.md").read_text()
    hook = TOLD["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for step in hook["substitutions"]:
        text = re.sub(step["pattern"], step["replacement"], text)
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links and all(link.startswith("https:") for link in links)
    assert "](experiments/" in whole and "![" in whole and "![" not in text
    for kept in ("## Try it", "## Where everything is", "model cards of Toybox", "@article"):
        assert kept in text


def test_licences_of_all_that_is_in_the_wheel():
    assert PROJECT["license"] == "Apache-2.0 AND MIT AND BSD-3-Clause"
    texts = [(ROOT / file).read_text() for file in PROJECT["license-files"]]
    assert len(texts) == 2 and "Apache License" in texts[0]
    assert all(name in texts[1] for name in ("Apache License", "MIT License", "BSD 3-Clause"))


def test_the_versions_of_python_are_those_that_are_tested():
    named = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if "3." in line]
    assert named == VERSIONS and PROJECT["requires-python"] == f">={VERSIONS[0]}"
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    for name in ("tests", "wheel"):
        assert jobs[name]["strategy"]["matrix"]["python"] == VERSIONS
    assert jobs["tests"]["strategy"]["matrix"]["resolution"] == ["lowest-direct", "highest"]


@pytest.mark.parametrize("job", ["lint", "tests", "parity", "wheel"])
def test_what_the_workflow_runs_is_there(job):
    """Its own files, and the extras that it installs."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    said = "\n".join(step.get("run", "") for step in jobs[job]["steps"])
    for file in re.findall(r"(?:tests|experiments)/[\w/.]+", said):
        assert (ROOT / file).exists()
    for extras in re.findall(r"\.\[([a-z,]+)\]", said):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
