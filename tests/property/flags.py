"""Command lines as people mistype them: every command, its flags, and values of every kind."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result
from hypothesis import strategies as st

from node.cli.main import COMMANDS, cli
from protocol.wire.encoding import canonical
from tests.support import fixtures
from tests.support.songs import wav

# Never a reachable node: the port is closed.
PEER = f"/ip4/127.0.0.1/tcp/1/p2p/{fixtures.peer(0)}"

VALUES: tuple[str, ...] = (
    *("", " ", "-", "--", "-1", "0", "1", "2.5", "1e999", "nan", "inf", "-inf", "NaN", "1e400"),
    *("18446744073709551616", "9007199254740993", "9" * 4_400, "-9" * 40, "0x10", "1_000", "٣"),
    *("\udcff", "\ud800", "a\udc80b", "\x00", "\x1b[2J", "\x7f", "\n", "\r\n", "\u202e", "\ufffe"),
    *("🎵" * 300, "é", "x" * 5_000, "true", "True", "null", "{}", "[]", "../..", "/", "/dev/null"),
    *("n.json", "task.json", "bom.json", "utf16.json", "comma.json", "empty", "song.wav", "folder"),
    *(
        "song.mp3",
        "lfs",
        "key.pem",
        "odd.toml",
        "missing",
        "\udcff.wav",
        "out.wav",
        "0" * 64,
        "f" * 63,
    ),
    *(
        PEER,
        "localhost:4001",
        "/ip4/999.0.0.1/tcp/1/p2p/x",
        PEER + "\udcff",
        "a=b",
        "max_new_tokens=0",
    ),
    *(
        "max_new_tokens=" + "9" * 400,
        "helium/embedded-music",
        fixtures.MODEL,
        "cpu",
        "text-to-music",
    ),
)
values = (
    st.sampled_from(VALUES) | st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)
)


def files(folder: Path) -> None:
    """Write the files that `VALUES` name."""
    document = canonical(fixtures.network_document())
    (folder / "n.json").write_bytes(document)
    (folder / "bom.json").write_bytes(b"\xef\xbb\xbf" + document)
    (folder / "utf16.json").write_bytes(document.decode().encode("utf-16"))
    (folder / "comma.json").write_bytes(document[:-1] + b",}")
    (folder / "task.json").write_bytes(canonical(fixtures.args()))
    (folder / "empty").touch()
    (folder / "song.wav").write_bytes(wav(44_100))
    (folder / "song.mp3").write_bytes(b"ID3\4" + bytes(400))
    (folder / "lfs").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    (folder / "odd.toml").write_bytes(b"\xff\xfe")
    (folder / "key.pem").write_text("no key")
    (folder / "\udcff.wav").write_bytes(wav(100))
    (folder / "folder").mkdir()


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command with its names, those of groups included."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from (((name, sub), child) for sub, child in command.commands.items())
        else:
            yield (name,), command


PARAMETERS = {names: command.params for names, command in commands()}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw a command with some of its flags, each with a value of some kind."""
    names = draw(st.sampled_from(sorted(PARAMETERS)))
    line, arguments = list(names), list[str]()
    for parameter in PARAMETERS[names]:
        if isinstance(parameter, click.Argument):
            if draw(st.integers(0, 4)):
                arguments.append(draw(values))
        elif draw(st.integers(0, 2)) == 0:
            line += _option(draw, parameter)
    if "--network" not in line and draw(st.booleans()):
        line += ["--network", "n.json"]
    return [*line, *arguments]


def _option(draw: st.DrawFn, parameter: Any) -> list[str]:
    flag = draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts]))
    return [flag] if parameter.is_flag else [flag, draw(values)]


def call(line: Sequence[str], folder: Path) -> Result:
    """Run a command line in this process, in a folder of its own."""
    environment: dict[str, str | None] = {name: None for name in os.environ if "HELIUM" in name}
    runner = CliRunner(env={**environment, "HOME": str(folder)})
    # No program can be given a null character.
    arguments = [argument.replace("\0", "") for argument in line]
    with contextlib.chdir(folder):
        return runner.invoke(cli, arguments, prog_name="helium", input="{")


def check(line: Sequence[str], folder: Path) -> None:
    """Assert that a command line ends with a documented code, and one line that says why."""
    result = call(line, folder)
    shown = f"{line!r:.2000}\n{result.exit_code} {result.stderr:.2000}"
    assert result.exit_code in range(7), shown
    assert "internal fault" not in result.stderr, shown
    assert "Traceback" not in result.stderr, shown
    if result.exit_code:
        last = result.stderr.splitlines()[-1]
        assert last.startswith("helium: "), shown
        assert len(last) < 4000, shown
