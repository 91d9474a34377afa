"""The command line matches what README and docs say about it."""

from pathlib import Path

from node.cli.exit_codes import MEANINGS
from node.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def test_documented_exit_codes_match() -> None:
    assert all(f"| {int(code)} | {meaning} |" in OPERATIONS for code, meaning in MEANINGS.items())


def test_every_documented_command_exists() -> None:
    lines = [
        line.removeprefix("$ ").removeprefix(".venv/bin/")
        for line in (README + OPERATIONS).splitlines()
    ]
    shown = {line.split()[1] for line in lines if line.startswith("helium ")}
    assert shown <= {*COMMANDS}
    assert shown >= {"key", "network", "run", "submit", "verify"}
