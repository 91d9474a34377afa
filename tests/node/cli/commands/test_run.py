from pathlib import Path

import pytest

from node.config.settings import describe
from tests.node.cli.conftest import Helium


def test_every_setting_is_a_flag_with_its_variable(helium: Helium) -> None:
    shown = " ".join(helium("run", "--help").stdout.split())
    for setting in describe():
        assert setting.flag in shown
        assert setting.variable in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "4001"], "listen (from --listen): '4001' is not of the form"),
        (["--max-queue", "many"], "max_queue (from --max-queue): 'many' is no whole number"),
        (["--config", "none.toml"], "none.toml: cannot be read"),
        (["--key", "none.pem"], "none.pem is not there"),
    ],
)
def test_what_is_wrong_is_named(helium: Helium, arguments: list[str], reason: str) -> None:
    done = helium("run", *arguments)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_file_is_read(helium: Helium) -> None:
    Path("helium.toml").write_text("listen = 4001\n")
    done = helium("run", "--config", "helium.toml")
    assert done.exit_code == 2
    assert "listen (from helium.toml): 4001" in done.stderr
