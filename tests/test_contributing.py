"""What contributors meet: hooks, citation and templates agree with the project."""

import re
import tomllib

import yaml

import bnn_lightning
from tests.helpers import ROOT


def test_hooks_are_what_make_check_runs():
    recipe = re.search(r"^check:.*\n((?:\t.*\n?)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"  # nothing is fetched
    assert [hook["entry"] for hook in local["hooks"]] == commands
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in local["hooks"])


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == bnn_lightning.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]


def test_templates_of_issues_can_be_read():
    files = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in files}
    assert set(forms) == {"bug", "config", "idea"}
    for name in ("bug", "idea"):
        assert {"name", "description", "body"} <= set(forms[name])


def test_paths_of_the_guide_exist():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:bnn_lightning|tests|configs|benchmarks)/[\w/.]*)`", guide)
    assert len(paths) > 15
    for path in paths:
        assert (ROOT / path).exists(), path
