from pathlib import Path

import pytest

from node.config.limits import Limits
from node.config.setting import settings_of
from node.config.settings import Settings
from tests.node.cli.conftest import Helium


def test_help_lists_every_setting_with_its_variable(helium: Helium) -> None:
    text = " ".join(helium("run", "--help").stdout.split())
    for setting in settings_of(Settings):
        assert setting.flag in text
        assert setting.variable in text


def test_help_fits_on_two_screens(helium: Helium) -> None:
    lines = helium("run", "--help").stdout.splitlines()
    assert len(lines) <= 90
    assert max(map(len, lines)) <= 80


def test_limits_are_no_flags(helium: Helium) -> None:
    text = helium("run", "--help").stdout
    assert not any(setting.flag in text for setting in settings_of(Limits))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "4001"], "listen (from --listen): '4001' is not of the form"),
        (
            ["--requester-tasks", "many"],
            "requester_tasks (from --requester-tasks): 'many' is no whole",
        ),
        (
            ["--max-queue", "3"],
            "--max-queue: max_queue is a limit: set max_queued_tasks in the table",
        ),
        (["--max-connections=3"], "set max_connections in the table [limits] of the TOML file"),
        (["--config", "none.toml"], "none.toml: cannot be read"),
        (["--key", "none.pem"], "none.pem does not exist"),
    ],
)
def test_wrong_argument_is_named(helium: Helium, arguments: list[str], reason: str) -> None:
    done = helium("run", *arguments)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_config_file_is_read(helium: Helium) -> None:
    Path("helium.toml").write_text("listen = 4001\n")
    done = helium("run", "--config", "helium.toml")
    assert done.exit_code == 2
    assert "listen (from helium.toml): 4001" in done.stderr
