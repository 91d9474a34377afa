"""Parsers of the values of settings, from flags, the environment or a TOML file.

A parser takes the value as written and the folder that relative paths start from. It returns what
the setting holds, or raises ValueError with a reason that follows the value in the message.
"""

import math
import os
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

from schemas.errors import HeliumError

_T = TypeVar("_T")

_PEER = r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}"
_PORT = r"tcp/(?P<port>[0-9]{1,5})"
LISTEN = re.compile(rf"/ip[46]/[0-9a-fA-F.:]+/{_PORT}\Z")
ANNOUNCE = re.compile(rf"/(ip[46]|dns[46]?)/[0-9A-Za-z.:-]+/{_PORT}\Z")
DIAL = re.compile(rf"/(ip[46]|dns[46]?)/[0-9A-Za-z.:-]+/{_PORT}/p2p/{_PEER}\Z")


class InvalidEntry(HeliumError, ValueError):
    """One entry of a list cannot be used; the message is the reason, without the entry."""

    def __init__(self, entry: object, reason: str) -> None:
        super().__init__(reason)
        self.entry = entry


def _parse_entry(parse: Callable[[object, Path], _T], entry: object, folder: Path) -> _T:
    """Parse an entry of a list. Raises InvalidEntry."""
    try:
        return parse(entry, folder)
    except ValueError as error:
        raise InvalidEntry(entry, str(error)) from None


def path(value: object, folder: Path) -> Path:
    """Return a path; a relative one starts from `folder`."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("is no path")
    try:
        os.fsencode(value)  # text of a file may hold a lone surrogate
    except UnicodeEncodeError:
        raise ValueError("is no path") from None
    try:
        return folder / Path(value).expanduser()
    except RuntimeError:
        raise ValueError("names an unknown home folder") from None


def paths(value: object, folder: Path) -> tuple[Path, ...]:
    """Return the paths of a list, which is separated as PATH is."""
    return tuple(_parse_entry(path, entry, folder) for entry in _entries(value, os.pathsep))


def address(pattern: re.Pattern[str], example: str) -> Callable[[object, Path], str]:
    """Return a parser of one multiaddr that matches `pattern`."""

    def parse(value: object, _: Path) -> str:
        match = pattern.match(value) if isinstance(value, str) else None
        if match is None or int(match["port"]) > 65_535:
            raise ValueError(f"is not of the form {example}")
        _check_host(*match.string.split("/")[1:3])
        return match.string

    return parse


def _check_host(protocol: str, host: str) -> None:
    """Raise ValueError for an IP address that is none."""
    if protocol in ("ip4", "ip6"):
        try:
            (IPv4Address if protocol == "ip4" else IPv6Address)(host)
        except ValueError:
            raise ValueError(f"has {host!r}, which is no IPv{protocol[-1]} address") from None


def addresses(pattern: re.Pattern[str], example: str) -> Callable[[object, Path], tuple[str, ...]]:
    """Return a parser of a list of multiaddrs that match `pattern`."""
    parse_one = address(pattern, example)

    def parse(value: object, folder: Path) -> tuple[str, ...]:
        return tuple(_parse_entry(parse_one, entry, folder) for entry in _entries(value, ","))

    return parse


def peers(value: object, _: Path) -> tuple[str, ...]:
    """Return the peer ids of a list."""
    entries = tuple(str(entry) for entry in _entries(value, ","))
    for entry in entries:
        if re.fullmatch(_PEER, entry) is None:
            raise InvalidEntry(entry, "is no peer id (12D3KooW...)")
    return entries


def whole_number(minimum: int, maximum: int) -> Callable[[object, Path], int]:
    """Return a parser of whole numbers from `minimum` to `maximum`."""

    def parse(value: object, _: Path) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        # bool is a subclass of int, and `true` in a TOML file is no number.
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ValueError(f"is no whole number from {minimum} to {maximum}")
        return value

    return parse


def number(minimum: float, maximum: float) -> Callable[[object, Path], float]:
    """Return a parser of numbers from `minimum` to `maximum`."""

    def parse(value: object, _: Path) -> float:
        try:
            parsed = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            parsed = math.nan
        # NaN is below no maximum and above no minimum, so the range refuses it too.
        if isinstance(value, bool) or not minimum <= parsed <= maximum:
            raise ValueError(f"is no number from {minimum} to {maximum}")
        return parsed

    return parse


def choice(options: tuple[str, ...]) -> Callable[[object, Path], str]:
    """Return a parser of one of the options."""

    def parse(value: object, _: Path) -> str:
        if value not in options:
            raise ValueError(f"is none of {', '.join(options)}")
        return str(value)

    return parse


def _entries(value: object, separator: str) -> list[object]:
    """Return the entries of a list, which the environment writes as one string."""
    if isinstance(value, str):
        return [entry.strip() for entry in value.split(separator) if entry.strip()]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Path):
        return [value]
    raise ValueError("is no list")
