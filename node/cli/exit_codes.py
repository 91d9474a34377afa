"""How the command ends: exit codes, and the exception that carries one."""

import sys
from enum import IntEnum
from typing import IO, Any

import click

from schemas.errors import HeliumError, printable

# Characters of a line, and of its end, which stays if the line is cut.
_MAX_LINE, _LINE_END = 2000, 500


class Exit(IntEnum):
    """The exit codes of `helium`. Scripts depend on them, so a code never changes its meaning."""

    OK = 0
    FAULT = 1
    USAGE = 2
    NO_NODE = 3
    REJECTED = 4
    NO_AGREEMENT = 5
    UNVERIFIED = 6
    # What shells report for signals: 128 and the signal's number.
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


# `helium --help` and docs/operations.md show these texts; a test compares them.
MEANINGS = {
    Exit.OK: "done",
    Exit.FAULT: "a fault of this machine or of the program (disk full, port taken), or "
    "doctor: not ready",
    Exit.USAGE: "wrong usage: an unknown flag, a value that no network takes, an unusable file, or "
    "the wrong key to cancel",
    Exit.NO_NODE: "no node was reachable, was ready, served the audio or showed the withdrawal",
    Exit.REJECTED: "the task was rejected, is not known, or the members agree that it fails",
    Exit.NO_AGREEMENT: "the task ended without agreement",
    Exit.UNVERIFIED: "a certificate, evidence or audio file failed verification",
    Exit.HUNG_UP: "the terminal was closed (SIGHUP); a task that was submitted goes on",
    Exit.INTERRUPTED: "interrupted by ctrl-C; a task that was submitted goes on",
    Exit.TERMINATED: "terminated by SIGTERM; a task that was submitted goes on",
}


class Failure(HeliumError, click.ClickException):
    """The command failed: one line on standard error, and an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(one_line(message))
        self.exit_code = int(code)  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `helium: message`."""
        print(f"helium: {self.message}", file=file or sys.stderr)


def one_line(text: str) -> str:
    """Return `text` as one line of printable characters.

    A message may quote a peer, whose text may hold escape sequences for the terminal.
    """
    line = printable(text).strip()
    if len(line) <= _MAX_LINE:
        return line
    # What was given may be endless. The end of a line says what to do.
    return f"{line[: _MAX_LINE - _LINE_END]} ... {line[-_LINE_END:]}"


def usage(message: str) -> Failure:
    """Return the failure for wrong usage: a flag, a setting or a file of the user."""
    return Failure(Exit.USAGE, message)
