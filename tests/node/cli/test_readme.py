"""What the README says of the command line is what the command line does."""

from pathlib import Path

import pytest

from node.cli.exit_codes import MEANINGS
from node.cli.main import COMMANDS
from node.config.setting import Setting
from node.config.settings import describe

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()


@pytest.mark.parametrize("setting", describe(), ids=lambda setting: str(setting.name))
def test_every_setting_is_in_the_table(setting: Setting) -> None:
    default = setting.default if isinstance(setting.default, str) else ", ".join(setting.default)
    reason = setting.reason.replace("<owner>/<name>", "`<owner>/<name>`")
    shown = f"`{default}`" if default else "none"
    assert f"| `{setting.flag}` | `{setting.variable}` | {reason} | {shown} |" in README


def test_every_exit_code_is_in_the_table() -> None:
    assert all(f"| {int(code)} | {meaning} |" in README for code, meaning in MEANINGS.items())


def test_every_command_it_shows_is_one() -> None:
    lines = [line.removeprefix("$ ").removeprefix(".venv/bin/") for line in README.splitlines()]
    shown = {line.split()[1] for line in lines if line.startswith("helium ")}
    assert shown <= {*COMMANDS}
    assert shown >= {"key", "network", "run", "submit", "verify"}
