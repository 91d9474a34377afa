"""Files that the command line reads and writes; a written one appears whole or not at all."""

import os
import sys
import tempfile
from pathlib import Path

import click

from node.cli.exit_codes import Exit, Failure, usage
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.wire.encoding import Json, parse


def read(path: Path, limit: int = DOCUMENT_LIMIT) -> bytes:
    """Return a file's bytes, `-` being standard input; one over `limit` bytes is refused."""
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
    """See to it that a file is there and can be read; its content is left alone."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise usage(f"{path}: cannot be read: {error.strerror}") from None


def check_writable(path: Path) -> None:
    """Make an empty file beside `path` for a moment. Raises OSError where `write` would fail."""
    _draft(path).unlink()


def read_json(path: Path) -> Json:
    """Return the I-JSON value in a file; what is wrong with it is named."""
    try:
        return parse(read(path), DOCUMENT_LIMIT)
    except Rejected as rejected:
        raise usage(f"{path}: {rejected.detail}") from None


def write(path: Path, content: bytes, *, over: bool = True) -> None:
    """Write a file whole: to a temporary name beside it, then renamed.

    Unless `over`, a file that is there stays: click's usage failure.
    """
    try:
        draft = _draft(path)
    except OSError as error:
        raise Failure(Exit.FAULT, f"{path}: cannot be written: {error.strerror}") from None
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o666 & ~_umask())
        if over:
            draft.replace(path)
        else:
            os.link(draft, path)
    except FileExistsError:
        raise usage(f"{path}: exists already; --force replaces it") from None
    except OSError as error:
        raise Failure(Exit.FAULT, f"{path}: cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


def _draft(path: Path) -> Path:
    """Make an empty file of a name not yet taken, beside `path`."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


FILE = click.Path(dir_okay=False, path_type=Path)
"""An option or argument that names a file; whether it is there is seen when it is opened."""
