"""The site: its reference has every public name and every verb, and each page is in a table of contents."""

import re

import pytest

from bnn_lightning.cli.entry import verbs
from docs.public_names import left_out, public_objects
from tests.helpers import ROOT

DOCS = ROOT / "docs"


def documented():
    """Full names of what the directives of the reference document."""
    names = []
    for page in sorted((DOCS / "reference").glob("*.md")):
        module = ""
        for kind, name in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)$", page.read_text(), re.MULTILINE):
            if kind == "currentmodule":
                module = name
            else:
                names.append(f"{module}.{name}")
    return names


def test_the_reference_has_every_public_name_once():
    names = documented()
    assert len(names) == len(set(names)) > 150
    assert left_out(names) == []


@pytest.mark.parametrize("name", ["bnn_lightning.LRT", "bnn_lightning.data.MNIST5k", "bnn_lightning.cli.Verb"])
def test_a_name_that_is_left_out_is_told(name):
    # Names of several doors are one object, and are all told.
    others = [other for other in documented() if other != name]
    assert name in left_out(others)
    assert {id(public_objects()[other]) for other in left_out(others)} == {id(public_objects()[name])}


def test_the_reference_has_every_verb():
    page = (DOCS / "reference" / "command_line.md").read_text()
    shown = re.findall(r"^## bnn (\w+)\n.*?^show\(\"(\w+)\", \"--help\"\)$", page, re.MULTILINE | re.DOTALL)
    assert all(heading == verb for heading, verb in shown)
    assert sorted(verb for _, verb in shown) == sorted({*verbs(), "serve", "study", "configs"})


def pages_below(page, of_page):
    """A page and all pages that the tables of contents below it lead to."""
    found = {page}
    for entry in of_page(page):
        found |= pages_below((page.parent / f"{entry}.md").resolve(), of_page)
    return found


def entries(page):
    tables = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for table in tables for line in table.splitlines() if line and not line.startswith(":")]
    return [re.sub(r".*<(.*)>", r"\1", line) for line in lines]  # Title <page>, or the page alone


def test_every_page_is_in_a_table_of_contents():
    index = DOCS / "index.md"
    assert pages_below(index, entries) == set(DOCS.rglob("*.md"))
    # The test can fail: without the page of gotchas it is missing.
    without = pages_below(index, lambda page: [entry for entry in entries(page) if entry != "gotchas"])
    assert set(DOCS.rglob("*.md")) - without == {DOCS / "gotchas.md"}
