import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from node.cli import main
from node.cli.exit_codes import MEANINGS, Exit, Failure
from tests.node.cli.conftest import Helium


def test_help_lists_every_command_and_exit_code(helium: Helium) -> None:
    text = helium("--help").stdout
    assert all(f"  {name} " in text for name in main.COMMANDS)
    assert all(f"{int(code)}  {meaning}" in text for code, meaning in MEANINGS.items())


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_has_help(name: str, helium: Helium) -> None:
    done = helium(name, "--help")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize(
    ("arguments", "named", "command"),
    [
        (["fly"], "'fly'", "helium"),
        (["--zzz"], "--zzz", "helium"),
        (["submit", "--zzz"], "--zzz", "helium submit"),
        (["key", "fly"], "'fly'", "helium key"),
        (["verify"], "'CERTIFICATE'", "helium verify"),
        (["submit", "--seed", "x"], "'--seed': 'x'", "helium submit"),
    ],
)
def test_a_usage_error_is_one_line(
    arguments: list[str], named: str, command: str, helium: Helium
) -> None:
    done = helium(*arguments)
    assert done.exit_code == Exit.USAGE
    [line] = done.stderr.splitlines()
    assert line.startswith("helium: ")
    assert named in line
    assert line.endswith(f"(see {command} --help)")


@pytest.mark.parametrize("arguments", [[], ["key"]])
def test_a_group_without_a_command_shows_its_help(arguments: list[str], helium: Helium) -> None:
    done = helium(*arguments)
    assert done.exit_code == Exit.USAGE
    assert "Commands:" in done.stderr


def test_an_interrupt_is_one_line_with_its_code(
    helium: Helium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli.commands.key._path", _interrupted)
    done = helium("key", "show")
    assert done.exit_code == Exit.INTERRUPTED
    assert done.stderr == "helium: interrupted\n"


def _interrupted(file: object) -> None:
    raise KeyboardInterrupt


def test_help_and_verify_import_neither_torch_nor_libp2p() -> None:
    """A real process: here everything is imported already."""
    code = (
        "import sys; from node.cli.main import cli\n"
        "for line in ['--help', 'verify --help', 'network --help']:\n"
        "    cli(line.split(), standalone_mode=False)\n"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'libp2p', 'transformers', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"Usage:") == 3


def _raising(error: Exception) -> Any:
    @click.command(cls=type("One", (click.Command,), {}))
    def failing() -> None:
        with main.one_line_errors():
            raise error

    return CliRunner().invoke(failing)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "song.wav"), "song.wav: No space left on device"),
        (KeyError("x"), "internal fault (HELIUM_DEBUG=1 shows the traceback): KeyError: 'x'"),
    ],
)
def test_an_unexpected_exception_is_one_line(error: Exception, line: str) -> None:
    done = _raising(error)
    assert done.exit_code == Exit.FAULT
    assert done.stderr == f"helium: {line}\n"


def test_debug_mode_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIUM_DEBUG", "1")
    assert isinstance(_raising(KeyError("x")).exception, KeyError)


def test_a_message_is_printed_on_one_line() -> None:
    assert Failure(Exit.REJECTED, "a\nb\x1b[2Jc").message == "a b [2Jc"
