"""The documentation names only commands, flags, files and pages that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from node.cli.exit_codes import MEANINGS
from node.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    ROOT / "protocol" / "README.md",
    *ROOT.glob("executor/shipped/**/*.md"),
]
# A command line of `helium` in a code block, with its continuation lines.
COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?helium ((?:.*\\\n)*.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]+)?(#[^)\s]+)?\)")
REPOSITORY_PATH = re.compile(
    r"`((?:docs|executor|node|protocol|schemas|scripts|tests)/[\w./*]*\w)`"
)


def test_documented_exit_codes_match() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert all(f"| {int(code)} | {meaning} |" in operations for code, meaning in MEANINGS.items())


def command_lines(page: Path) -> list[list[str]]:
    lines = (line.replace("\\\n", " ") for line in COMMAND.findall(page.read_text()))
    # Up to a comment, a redirection or the next shell command.
    return [shlex.split(re.split(r" [#;>|]|; ", line)[0]) for line in lines]


def test_every_documented_command_and_flag_exists() -> None:
    documented = [words for page in PAGES for words in command_lines(page)]
    assert {words[0] for words in documented} >= {"key", "network", "run", "submit", "verify"}
    for words in documented:
        command: click.Command = cli
        names = iter(words)
        while isinstance(command, click.Group):
            name = next(names)
            subcommand = command.get_command(click.Context(command), name)
            assert subcommand is not None, words
            command = subcommand
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in names if word.startswith("--")} <= flags, words


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_path_resolves(page: Path) -> None:
    text = page.read_text()
    for target, anchor in LINK.findall(text):
        if not target.startswith("http"):
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target + anchor
    assert [path for path in REPOSITORY_PATH.findall(text) if not [*ROOT.glob(path)]] == []
