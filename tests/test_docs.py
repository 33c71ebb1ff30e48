"""The pages in docs keep their word: commands parse, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from cclseg.cli import app as program

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def commands_of(page):
    """The lines of a page's shell blocks that run our program alone."""
    for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words and words[0] == "cclseg" and not set(words) & {"|", ">", "&", "&&", ";"}:
                yield words[1:]


ALL = [(page.name, words) for page in PAGES for words in commands_of(page)]


def test_there_are_pages_with_commands():
    assert len(PAGES) >= 10
    assert len(ALL) >= 20


@pytest.mark.parametrize(("page", "words"), ALL, ids=[f"{p}: {' '.join(w)}" for p, w in ALL])
def test_commands_parse(page, words, tmp_path):
    words = [word.replace("/run/cclseg", str(tmp_path)) for word in words]
    while words[0].startswith("-"):  # options of the program itself
        words.pop(0)
    with program.app.make_context("cclseg", list(words), resilient_parsing=True) as context:
        verb = program.app.get_command(context, words[0])
    assert verb is not None
    assert verb.make_context(words[0], words[1:]).params is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("https://"):
            assert (DOCS / target).exists(), f"{page.name}: {target} is missing"
