"""The pages name what there is."""

import re
from dataclasses import fields

import pytest

from bench.store.turn import Turn
from decoders import registry
from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"


def test_every_option_of_every_decoder_is_named():
    page = (DOCS / "running.md").read_text(encoding="utf-8")
    table = page.split("| decoder | tree | options |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (.*) \|$", table, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", options)) for name, options in rows}
    assert told == {name: registry.options(name) for name in registry.BUILT_IN}


def test_every_field_of_a_row_is_named():
    page = (DOCS / "file_formats.md").read_text(encoding="utf-8")
    table = page.split("### `turns.jsonl`")[1].split("### ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert set(named) == {field.name for field in fields(Turn)}


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS.glob("*.md")], ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [each for each in links if not (page.parent / each).exists()] == []
