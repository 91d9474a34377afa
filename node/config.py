"""Settings: what the owner of a node decides, and where each was said.

A flag counts before `HELIUM_…` in the environment, that before the TOML file, that before the
default. What all peers must have in common is not here: it is in the network document.
"""

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PEER = r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}"
_PORT = r"tcp/(?P<port>[0-9]{1,5})"
_LISTEN = re.compile(rf"/ip[46]/[0-9a-fA-F.:]+/{_PORT}\Z")
_ANNOUNCE = re.compile(rf"/(ip[46]|dns[46]?)/[0-9A-Za-z.:-]+/{_PORT}\Z")
_DIAL = re.compile(rf"/(ip[46]|dns[46]?)/[0-9A-Za-z.:-]+/{_PORT}/p2p/{_PEER}\Z")
_DATA_DIR = "<data_dir>"


class ConfigError(ValueError):
    """A setting is unknown or unusable; the message names it and where it came from."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a node; `describe` says what each is for."""

    data_dir: Path
    network: Path
    key: Path
    models_dir: tuple[Path, ...]
    listen: str
    announce: tuple[str, ...]
    peers: tuple[str, ...]
    max_queue: int
    feed_seconds: float
    blob_days: float
    submitters: tuple[str, ...]
    requester_tasks: int
    max_connections: int
    address_connections: int
    peer_connections: int
    peer_messages: float
    peer_bytes: int
    peer_streams: float
    peer_submissions: float
    ban_points: float
    ban_seconds: float
    idle_seconds: float
    reader_bytes: int
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, for `--help` and the documentation; its default in the words of a TOML file."""

    name: str
    reason: str
    default: str | tuple[str, ...]
    parse: Callable[[object, Path], object]  # the value as given, the folder paths start from

    @property
    def flag(self) -> str:
        """On the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """In the environment."""
        return "HELIUM_" + self.name.upper()


def describe() -> tuple[Setting, ...]:
    """Every setting, in the order of `Settings`; `<data_dir>` in a default stands for its value."""
    levels = ("debug", "info", "warning", "error")
    return (
        Setting(
            "data_dir",
            "Where the node keeps its journal and blobs.",
            "~/.local/share/helium",
            _path,
        ),
        Setting(
            "network",
            "The network document: what all peers have in common.",
            f"{_DATA_DIR}/network.json",
            _path,
        ),
        Setting("key", "The node's key: who it is.", f"{_DATA_DIR}/key.pem", _path),
        Setting(
            "models_dir",
            "Folders that hold models as <owner>/<name>, besides the shipped ones.",
            (f"{_DATA_DIR}/models",),
            _paths,
        ),
        Setting(
            "listen",
            "The address to listen on; port 0 takes any free one.",
            "/ip4/0.0.0.0/tcp/4001",
            _addresses(_LISTEN, "/ip4/0.0.0.0/tcp/4001", one=True),
        ),
        Setting(
            "announce",
            "Addresses to tell peers instead of the one listened on, behind a router for example.",
            (),
            _addresses(_ANNOUNCE, "/dns4/node.example.org/tcp/4001"),
        ),
        Setting(
            "peers",
            "Peers to connect to, and to connect to again whenever one is lost.",
            (),
            _addresses(_DIAL, "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."),
        ),
        Setting(
            "max_queue",
            "Tasks that may wait for the worker; from more the node abstains with busy.",
            "64",
            _whole(1, 10_000),
        ),
        Setting(
            "feed_seconds",
            "Seconds between readings of a peer's feed, which makes up for what gossip lost.",
            "5",
            _number(0.05, 3600),
        ),
        Setting(
            "blob_days",
            "Days that audio is kept, this node's own that others outvoted too; votes, "
            "certificates and evidence are kept for ever.",
            "30",
            _number(1, 36_500),
        ),
        Setting(
            "submitters",
            "Peer ids whose tasks this node takes and executes; none named means anyone's, which "
            "suits a testnet.",
            (),
            _peers,
        ),
        Setting(
            "requester_tasks",
            "Tasks of one requester that this node takes in an hour, 0 for any number; of use "
            "with submitters, as keys are free.",
            "0",
            _whole(0, 1_000_000),
        ),
        *_limits(),
        Setting("log_level", "The least weighty messages to log.", "info", _choice(levels)),
        Setting(
            "log_format",
            "How to log: auto is pretty on a terminal and json elsewhere.",
            "auto",
            _choice(("auto", "pretty", "json")),
        ),
    )


def _limits() -> tuple[Setting, ...]:
    """What peers may cost this node; the defaults are those of `node.limits.Limits`."""
    return (
        Setting(
            "max_connections",
            "Connections at a time; with other files they must stay below the process's limit "
            "of descriptors, usually 1,024.",
            "300",
            _whole(4, 100_000),
        ),
        Setting(
            "address_connections",
            "Of these from one address, or IPv6 /64, for keys are free: a laboratory behind one "
            "router. Loopback may have half of all.",
            "32",
            _whole(1, 100_000),
        ),
        Setting(
            "peer_connections",
            "Of these from one peer: it needs one, for a moment a second when both sides dial.",
            "4",
            _whole(1, 100),
        ),
        Setting(
            "peer_messages",
            "Gossip messages a second read from one address (on loopback: peer), of which each "
            "costs about 1 ms; ten seconds' worth may come at once.",
            "100",
            _number(1, 1e6),
        ),
        Setting(
            "peer_bytes",
            "Bytes a second read from one address (on loopback: peer), where a frame counts as "
            "32 KiB besides, and as many written to it: a sixth of a processor each.",
            str(32 * 1024 * 1024),
            _whole(65_536, 999_999_999),
        ),
        Setting(
            "peer_streams",
            "Streams a second opened from one address (on loopback: peer), of which each costs "
            "about 2 ms; ten seconds' worth may come at once.",
            "100",
            _number(1, 1e6),
        ),
        Setting(
            "peer_submissions",
            "Tasks a minute submitted or gossiped from one address (on loopback: peer), of which "
            "each costs about 20 ms; ten seconds' worth may come at once.",
            "600",
            _number(1, 1e6),
        ),
        Setting(
            "ban_points",
            "Messages that no honest peer sends, after which a peer is banned; one is forgiven "
            "every ten seconds.",
            "20",
            _number(1, 1e6),
        ),
        Setting(
            "ban_seconds",
            "How long a peer is banned: an attacker waits, a repaired peer is let in again.",
            "300",
            _number(1, 1e6),
        ),
        Setting(
            "idle_seconds",
            "After so long without a request, a peer that dialled this node is cut off; nodes ask "
            "for feeds every few seconds.",
            "600",
            _number(1, 1e6),
        ),
        Setting(
            "reader_bytes",
            "Bytes a second that a reader must take, or it is cut off: 128 MiB in under five "
            "hours.",
            "8192",
            _whole(1, 999_999_999),
        ),
    )


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], toml_path: Path | None
) -> Settings:
    """The settings from `flags` (by setting name; None or empty is not given), `environ`, the file.

    Lists are comma-separated in the environment, `models_dir` colon-separated as PATH is; paths in
    the file start from its folder. `ConfigError` names the setting and where it came from.
    """
    settings = describe()
    file = _read(toml_path) if toml_path else {}
    names = {setting.name for setting in settings}
    if unknown := sorted((set(flags) | set(file)) - names):
        where = toml_path if unknown[0] in file else "the command line"
        known = ", ".join(setting.name for setting in settings)
        raise ConfigError(f"{where}: {unknown[0]!r:.64} is no setting; known are {known}")
    found: dict[str, object] = {}
    for setting in settings:
        value, where, folder = _pick(setting, flags, environ, file, toml_path)
        if where == "default":
            value = _in_data_dir(setting.default, found.get("data_dir"))
        try:
            found[setting.name] = setting.parse(value, folder)
        except ValueError as error:
            raise ConfigError(f"{setting.name} (from {where}): {value!r:.200} {error}") from None
    return Settings(**found)  # type: ignore[arg-type]  # each of the type that its parser gives


def _pick(
    setting: Setting,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Mapping[str, object],
    toml_path: Path | None,
) -> tuple[object, str, Path]:
    here = Path.cwd()
    given = flags.get(setting.name)
    if given is not None and given != () and given != []:
        return given, setting.flag, here
    if setting.variable in environ:
        return environ[setting.variable], setting.variable, here
    if toml_path and setting.name in file:
        return file[setting.name], str(toml_path), toml_path.absolute().parent
    return None, "default", here


def _in_data_dir(default: str | tuple[str, ...], data_dir: object) -> str | tuple[str, ...]:
    if isinstance(default, str):
        return default.replace(_DATA_DIR, str(data_dir))
    return tuple(entry.replace(_DATA_DIR, str(data_dir)) for entry in default)


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise ConfigError(f"{path}: is no TOML file: {error}") from None


def _path(value: object, folder: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("is no path")
    try:
        return folder / Path(value).expanduser()
    except RuntimeError:
        raise ValueError("names an unknown home folder") from None


def _paths(value: object, folder: Path) -> tuple[Path, ...]:
    return tuple(_path(entry, folder) for entry in _entries(value, os.pathsep))


def _addresses(
    pattern: re.Pattern[str], example: str, *, one: bool = False
) -> Callable[[object, Path], object]:
    def parse(value: object, _: Path) -> object:
        entries = [value] if one else _entries(value, ",")
        for entry in entries:
            match = pattern.match(entry) if isinstance(entry, str) else None
            if match is None or int(match["port"]) > 65535:
                raise ValueError(f"is not of the form {example}")
        return value if one else tuple(entries)

    return parse


def _peers(value: object, _: Path) -> tuple[str, ...]:
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


def _whole(low: int, high: int) -> Callable[[object, Path], int]:
    def parse(value: object, _: Path) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"is no whole number from {low} to {high}")
        return value

    return parse


def _number(low: float, high: float) -> Callable[[object, Path], float]:
    def parse(value: object, _: Path) -> float:
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError(f"is no number from {low} to {high}")
        return number

    return parse


def _choice(options: tuple[str, ...]) -> Callable[[object, Path], str]:
    def parse(value: object, _: Path) -> str:
        if value not in options:
            raise ValueError(f"is none of {', '.join(options)}")
        return str(value)

    return parse
