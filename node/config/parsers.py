"""How the values of settings are read, from flags, the environment or a TOML file.

Every parser takes the value as given and the folder that paths start from, and returns what the
setting holds, or raises ValueError with what is wrong, to be put after the value.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

_PEER = r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}"
_PORT = r"tcp/(?P<port>[0-9]{1,5})"
LISTEN = re.compile(rf"/ip[46]/[0-9a-fA-F.:]+/{_PORT}\Z")
ANNOUNCE = re.compile(rf"/(ip[46]|dns[46]?)/[0-9A-Za-z.:-]+/{_PORT}\Z")
DIAL = re.compile(rf"/(ip[46]|dns[46]?)/[0-9A-Za-z.:-]+/{_PORT}/p2p/{_PEER}\Z")


def path(value: object, folder: Path) -> Path:
    """Return a path, from `folder` if it is relative."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("is no path")
    try:
        return folder / Path(value).expanduser()
    except RuntimeError:
        raise ValueError("names an unknown home folder") from None


def paths(value: object, folder: Path) -> tuple[Path, ...]:
    """Return the paths of a list."""
    return tuple(path(entry, folder) for entry in _entries(value, os.pathsep))


def addresses(
    pattern: re.Pattern[str], example: str, *, one: bool = False
) -> Callable[[object, Path], object]:
    """Return a parser of multiaddrs that match `pattern`, of `one` or of a list."""

    def parse(value: object, _: Path) -> object:
        entries = [value] if one else _entries(value, ",")
        for entry in entries:
            match = pattern.match(entry) if isinstance(entry, str) else None
            if match is None or int(match["port"]) > 65535:
                raise ValueError(f"is not of the form {example}")
        return value if one else tuple(entries)

    return parse


def peers(value: object, _: Path) -> tuple[str, ...]:
    """Return the peer ids of a list."""
    entries = tuple(str(entry) for entry in _entries(value, ","))
    for entry in entries:
        if re.fullmatch(_PEER, entry) is None:
            raise ValueError(f"holds {entry!r:.100}, which is no peer id (12D3KooW...)")
    return entries


def _entries(value: object, separator: str) -> list[object]:
    if isinstance(value, str):
        return [entry.strip() for entry in value.split(separator) if entry.strip()]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Path):
        return [value]
    raise ValueError("is no list")


def whole(low: int, high: int) -> Callable[[object, Path], int]:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(value: object, _: Path) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"is no whole number from {low} to {high}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[object, Path], float]:
    """Return a parser of numbers from `low` to `high`."""

    def parse(value: object, _: Path) -> float:
        try:
            found = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            found = math.nan
        if isinstance(value, bool) or not low <= found <= high:
            raise ValueError(f"is no number from {low} to {high}")
        return found

    return parse


def choice(options: tuple[str, ...]) -> Callable[[object, Path], str]:
    """Return a parser of one of the options."""

    def parse(value: object, _: Path) -> str:
        if value not in options:
            raise ValueError(f"is none of {', '.join(options)}")
        return str(value)

    return parse
