"""Every script prints its help before it installs anything, and the help names every option."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from scripts import random_mutants, simulate
from scripts.chaos_tool import __main__ as chaos_tool
from scripts.testnet_tool import __main__ as testnet_tool

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    path.name
    for path in (ROOT / "scripts").iterdir()
    if path.is_file() and path.read_bytes().startswith(b"#!")
)
COMMANDS = {
    "testnet": testnet_tool.testnet,
    "chaos": chaos_tool.chaos,
    "simulate": simulate.main,
    "mutants": random_mutants.main,
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh clone, where nothing is installed."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "scripts", root / "scripts")
    return root


def help_of(root: Path, name: str) -> str:
    done = subprocess.run(
        [root / "scripts" / name, "--help"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_installs_nothing(name: str, clone: Path) -> None:
    assert f"usage: scripts/{name}" in help_of(clone, name).replace("Usage", "usage")
    assert {path.name for path in clone.iterdir()} == {"scripts"}


def test_help_of_a_subcommand_installs_nothing(clone: Path) -> None:
    command = [str(clone / "scripts" / "embed"), "train", "--help"]
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert "usage: scripts/embed" in done.stdout
    assert {path.name for path in clone.iterdir()} == {"scripts"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_and_its_default(name: str) -> None:
    text = help_of(ROOT, name)
    documented = re.findall(r"^  (--[\w-]+)(.*(?:\n {4,}.*)*)", text, re.MULTILINE)
    options = {
        parameter.opts[0]: parameter
        for parameter in COMMANDS[name].params
        if isinstance(parameter, click.Option)
    }
    assert [flag for flag, _ in documented] == list(options)
    for flag, description in documented:
        default = options[flag].default
        if type(default) in (int, float):
            default = f"{default:g}"
        if isinstance(default, str) and default and flag != "--jobs":  # that is the number of cores
            assert re.search(rf"default: {re.escape(default)}\b", description), flag
