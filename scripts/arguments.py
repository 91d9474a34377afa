"""Arguments of scripts: a wrong one is a usage error, a line that names it and the reason."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from node.cli.exit_codes import usage

# What torch takes as a seed; other generators take any integer.
SEEDS = (-(2**63), 2**64 - 1)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `helium`'s: one line, and exit code 2. No flag is abbreviated."""

    def __init__(self, prog: str, description: str = "", *, own_help: bool = True) -> None:
        """`own_help` is False where the script's shell part prints the help."""
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=own_help,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise the usage error."""
        raise usage(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a type of argument: a whole number of at least `low`, and at most `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text} is not {_range(low, high)}")
        return value

    return parse


def number(
    low: float, high: float | None = None, *, low_allowed: bool = False
) -> Callable[[str], float]:
    """Return a type of argument: a finite number over `low`, or from it, and at most `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        too_low = value < low or (value == low and not low_allowed)
        if not math.isfinite(value) or too_low or (high is not None and value > high):
            limits = _range(low, high) if low_allowed else f"over {low:g}"
            if not low_allowed and high is not None:
                limits += f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return value

    return parse


def _range(low: float, high: float | None) -> str:
    return f"at least {low:g}" if high is None else f"from {low} to {high}"


def file(text: str) -> Path:
    """Return the path of a file that can be read; a type of argument."""
    path = Path(text)
    try:
        path.open("rb").close()
    except (OSError, ValueError) as error:
        raise _unusable(text, error) from None
    return path


def folder(text: str) -> Path:
    """Return the path of a folder that exists; a type of argument."""
    path = Path(text)
    try:
        os.scandir(path).close()
    except (OSError, ValueError) as error:
        raise _unusable(text, error) from None
    return path


def new_folder(text: str) -> Path:
    """Return the path of a folder that can be written, or created; a type of argument.

    It is not created: a later argument may be wrong.
    """
    path = Path(text)
    try:
        existing = next(p for p in (path, *path.absolute().parents) if p.exists())
        os.scandir(existing).close()
    except (OSError, ValueError) as error:
        raise _unusable(text, error) from None
    if not os.access(existing, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r}: {existing} is not writable")
    return path


def new_file(text: str) -> Path:
    """Return the path of a file that can be written, or created; a type of argument."""
    path = Path(text)
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except (OSError, ValueError) as error:
        raise _unusable(text, error) from None
    return path


def _unusable(text: str, error: OSError | ValueError) -> argparse.ArgumentTypeError:
    # A ValueError is that of a null character.
    reason = error.strerror if isinstance(error, OSError) else error
    return argparse.ArgumentTypeError(f"{text!r}: {reason}")
