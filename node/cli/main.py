"""The command line, put together. Each command's module is imported when the command is called."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from node.cli.exit_codes import MEANINGS, Exit, Failure, usage

# name: (module in this package, what it is for). The order is that of `--help`.
COMMANDS = {
    "key": ("key", "Make a node's key, or show whose key a file holds."),
    "network": ("network", "Write, show or extend a network document."),
    "doctor": ("doctor", "Show what this machine computes with, and whether it is ready."),
    "run": ("run", "Run a node until it is told to stop."),
    "submit": ("tasks", "Submit a task, wait, and write the audio and its certificate."),
    "status": ("tasks", "Show how a task stands, and who has voted for what."),
    "fetch": ("tasks", "Fetch a finished task's audio and certificate, verified."),
    "verify": ("verify", "Verify a certificate, and audio against it, offline."),
    "evidence": ("evidence", "List, export or verify proof that a member contradicted itself."),
    "explain": ("explain", "Show why a member was outvoted: where its result parts from the rest."),
    "peers": ("peers", "Show the nodes that can be reached, and whether they are ready."),
}

EPILOG = """\b
Examples:
  helium key new node.pem
  helium network create network.json --model helium/embedded-music --member 12D3KooW...
  helium run --network network.json --key node.pem
  export HELIUM_NETWORK=network.json HELIUM_PEERS=/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  helium submit --model helium/embedded-music --prompt "bells in the rain" --seed 42 -o song.wav
  helium verify song.wav.certificate.json --audio song.wav

\b
Exit codes:
""" + "\n".join(f"  {int(code)}  {meaning}" for code, meaning in MEANINGS.items())


class Commands(click.Group):
    """A group that imports a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"node.cli.commands.{COMMANDS[cmd_name][0]}")
        found = getattr(module, cmd_name)
        assert isinstance(found, click.Command)  # noqa: S101  # our own table says so
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in COMMANDS.items()])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments before the command's name; what is wrong there is one line too."""
        with one_line_each():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whatever it raises becomes one line and an exit code."""
        try:
            with one_line_each():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Failure(Exit.INTERRUPTED, "interrupted") from None


@contextmanager
def one_line_each() -> Iterator[None]:
    """Turn wrong usage and faults that no command expected into a `Failure`.

    HELIUM_DEBUG=1 shows faults whole.
    """
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:  # shows the help
        raise
    except click.UsageError as error:
        raise usage(_of_the_user(error)) from None
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get("HELIUM_DEBUG"):
            raise
        what = _of_the_system(error) if isinstance(error, OSError) else _of_ours(error)
        raise Failure(Exit.FAULT, what) from None


def _of_the_user(error: click.UsageError) -> str:
    hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    return error.format_message().rstrip(".") + hint


def _of_the_system(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _of_ours(error: Exception) -> str:
    return f"internal fault (HELIUM_DEBUG=1 shows more): {type(error).__name__}: {error}"


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="helium-node", prog_name="helium")
def cli() -> None:
    """Generate audio on peers that need not trust each other, and verify that they agree."""


def main() -> None:
    """Run the command `helium`."""
    cli(prog_name="helium")
