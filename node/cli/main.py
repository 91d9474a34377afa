"""The command `helium`. A subcommand's module is imported only when the subcommand is used."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from node.cli import interrupts
from node.cli.exit_codes import MEANINGS, Exit, Failure, usage

# name: (module in node.cli.commands, purpose). The order is that of `--help`.
COMMANDS = {
    "key": ("key", "Create a node's key, or show a key's peer id."),
    "network": ("network.group", "Write, show or extend a network document."),
    "doctor": ("doctor.command", "Check whether this machine can serve as a node."),
    "run": ("run", "Run a node."),
    "submit": ("tasks", "Submit a task, wait, and write the audio and its certificate."),
    "status": ("tasks", "Show a task's state at each node, and its votes."),
    "fetch": ("tasks", "Fetch a task's audio and certificate, verified."),
    "cancel": ("cancel", "Withdraw a task: ask its members not to begin it."),
    "verify": ("verify", "Verify a certificate, and audio against it, offline."),
    "evidence": (
        "evidence",
        "List, export or verify proof that a member contradicted itself.",
    ),
    "explain": ("explain", "Show why a member was outvoted, level by level."),
    "peers": ("peers", "Show reachable nodes, their readiness and their voting record."),
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
Output:
  Results go to standard output; --json prints them as one JSON document.
  Progress and failures go to standard error; a failure is one line.

\b
Exit codes:
""" + "\n".join(f"  {int(code)}  {meaning}" for code, meaning in MEANINGS.items())


class Commands(click.Group):
    """A group that imports a subcommand only to run it or to show its own help.

    Importing torch and libp2p takes seconds, which `--help` and `verify` do not need.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"node.cli.commands.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101  # COMMANDS names only commands
        return command

    # Click would call get_command for each name here, and so import every module.
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in COMMANDS.items()])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments before the command's name; an error becomes one line."""
        with one_line_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; every exception becomes one line and an exit code."""
        with one_line_errors():
            return super().invoke(ctx)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn usage errors, signals and unexpected exceptions into a `Failure`.

    With HELIUM_DEBUG set, an unexpected exception keeps its traceback.
    """
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:  # a UsageError, but it shows the help
        raise
    except click.UsageError as error:
        raise usage(_usage_line(error)) from None
    # Click prints these itself, or ends the process with their exit code.
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        raise Failure(Exit(interrupts.exit_code()), interrupts.word()) from None
    except Exception as error:
        if os.environ.get("HELIUM_DEBUG"):
            raise
        line = _system_line(error) if isinstance(error, OSError) else _internal_line(error)
        raise Failure(Exit.FAULT, line) from None


def _usage_line(error: click.UsageError) -> str:
    # The context names the subcommand whose arguments are wrong.
    hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    return error.format_message().rstrip(".") + hint


def _system_line(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _internal_line(error: Exception) -> str:
    name = type(error).__name__
    return f"internal fault (HELIUM_DEBUG=1 shows the traceback): {name}: {error}"


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="helium-node", prog_name="helium")
def cli() -> None:
    """Generate audio on peers that do not trust each other, and verify their agreement.

    A requester submits a task. The nodes of a committee compute it independently and vote. If a
    majority agrees bit by bit, their signatures form a certificate, which anyone can verify.
    """


def main() -> None:
    """Run the command `helium`, in a process of its own."""
    interrupts.install()
    try:
        cli(prog_name="helium")
    except SystemExit as end:
        interrupts.ended(end.code if isinstance(end.code, int) else int(Exit.FAULT))
        raise
