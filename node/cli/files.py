"""Files that the command line reads and writes; a write is atomic."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from node.cli.exit_codes import Exit, Failure, usage
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.wire.encoding import Json, parse


class PathType(click.Path):
    """A path that the operating system can hold: no null character, no lone surrogate."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path; a usage error for what is none."""
        try:
            valid = b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            valid = False
        if not valid:
            self.fail(f"{value!r} is no path", param, ctx)
        if not self.dir_okay and os.fsdecode(value).endswith(os.sep):  # a Path would drop it
            self.fail(f"{os.fsdecode(value)!r} names a folder, not a file", param, ctx)
        return super().convert(value, param, ctx)


FILE = PathType(dir_okay=False, path_type=Path)
"""The type of an option that names a file; opening the file checks that it exists."""


def read(path: Path, limit: int = DOCUMENT_LIMIT) -> bytes:
    """Return a file's bytes; `-` is standard input. Over `limit` bytes is a usage failure."""
    # One byte over the limit shows that a file is too long, without reading all of it.
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                content = file.read(limit + 1)
    except OSError as error:
        raise usage(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise usage(f"{path}: is longer than {limit} bytes")
    return content


def check_readable(path: Path) -> None:
    """Check that a file can be opened, without reading it. Raises a usage failure."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise usage(f"{path}: cannot be read: {error.strerror}") from None


def check_writable(path: Path) -> None:
    """Check that `write` can create `path`, by a temporary file beside it. Raises OSError."""
    _create_temporary(path).unlink()


def read_json(path: Path) -> Json:
    """Return the I-JSON value in a file. A usage failure names what is wrong with it."""
    try:
        return parse(read(path), DOCUMENT_LIMIT)
    except Rejected as rejected:
        raise usage(f"{path}: {rejected.detail}") from None


def write(path: Path, content: bytes, *, over: bool = True) -> None:
    """Write a file atomically: to a temporary name beside it, then renamed.

    With `over` False, an existing file stays and is a usage failure.
    """
    try:
        temporary = _create_temporary(path)
    except OSError as error:
        raise Failure(Exit.FAULT, f"{path}: cannot be written: {error.strerror}") from None
    try:
        with temporary.open("wb") as file:
            file.write(content)
            # Without fsync, a power cut after the rename may leave an empty file.
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # a temporary file has mode 0600
        if over:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # fails if `path` exists, unlike a rename
    except FileExistsError:
        raise usage(f"{path}: exists already; --force replaces it") from None
    except OSError as error:
        raise Failure(Exit.FAULT, f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _create_temporary(path: Path) -> Path:
    """Create an empty file with an unused name beside `path`."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    return Path(name)


def _umask() -> int:
    # There is no call that only reads it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
