"""Settings: what the owner of a node decides, and where each was said.

A flag counts before `HELIUM_…` in the environment, that before the TOML file, that before the
default. What all peers must have in common is not here: it is in the network document.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.config import bounds, parsers
from node.config.setting import Setting
from schemas.errors import HeliumError

_DATA_DIR = "<data_dir>"


class InvalidSetting(HeliumError, ValueError):
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
    blob_gigabytes: float
    submitters: tuple[str, ...]
    requester_tasks: int
    max_connections: int
    address_connections: int
    address_handshakes: float
    peer_connections: int
    peer_messages: float
    peer_bytes: int
    peer_streams: float
    peer_open_streams: int
    peer_submissions: float
    max_open: int
    peer_queue: int
    peer_queue_bytes: int
    address_upgrades: int
    upgrade_seconds: float
    ban_points: float
    ban_seconds: float
    forgiven_points: float
    idle_seconds: float
    reader_bytes: int
    peer_watches: int
    max_watches: int
    peer_reads: int
    max_reads: int
    peer_uploads: int
    max_uploads: int
    peer_feeds: int
    max_feeds: int
    log_level: str
    log_format: str


def describe() -> tuple[Setting, ...]:
    """Every setting, in the order of `Settings`; `<data_dir>` in a default stands for its value."""
    levels = ("debug", "info", "warning", "error")
    return (
        Setting(
            "data_dir",
            "Where the node keeps its journal and blobs.",
            "~/.local/share/helium",
            parsers.path,
        ),
        Setting(
            "network",
            "The network document: what all peers have in common.",
            f"{_DATA_DIR}/network.json",
            parsers.path,
        ),
        Setting("key", "The node's key: who it is.", f"{_DATA_DIR}/key.pem", parsers.path),
        Setting(
            "models_dir",
            "Folders that hold models as <owner>/<name>, besides the shipped ones.",
            (f"{_DATA_DIR}/models",),
            parsers.paths,
        ),
        Setting(
            "listen",
            "The address to listen on; port 0 takes any free one.",
            "/ip4/0.0.0.0/tcp/4001",
            parsers.addresses(parsers.LISTEN, "/ip4/0.0.0.0/tcp/4001", one=True),
        ),
        Setting(
            "announce",
            "Addresses to tell peers instead of the one listened on, behind a router for example.",
            (),
            parsers.addresses(parsers.ANNOUNCE, "/dns4/node.example.org/tcp/4001"),
        ),
        Setting(
            "peers",
            "Peers to connect to, and to connect to again whenever one is lost.",
            (),
            parsers.addresses(parsers.DIAL, "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."),
        ),
        Setting(
            "max_queue",
            "Tasks that may wait for the worker; from more the node abstains with busy.",
            "64",
            parsers.whole(1, 10_000),
        ),
        Setting(
            "feed_seconds",
            "Seconds between readings of a peer's feed, which makes up for what gossip lost.",
            "5",
            parsers.number(0.05, 3600),
        ),
        Setting(
            "blob_days",
            "Days that audio is kept, this node's own that others outvoted too; votes, "
            "certificates and evidence are kept for ever.",
            "30",
            parsers.number(1, 36_500),
        ),
        Setting(
            "blob_gigabytes",
            "Gigabytes (10^9 bytes) kept of others' audio, inputs and outputs; for more the oldest "
            "goes, but for the inputs of open tasks: where they fill it, inputs are refused as "
            "busy or not fetched. What this node generates is kept all the same, and not counted.",
            "20",
            parsers.number(0.1, 1e6),
        ),
        Setting(
            "submitters",
            "Peer ids whose tasks this node takes and executes; none named means anyone's, which "
            "suits a testnet.",
            (),
            parsers.peers,
        ),
        Setting(
            "requester_tasks",
            "Tasks of one requester that this node takes in an hour, 0 for any number; of use "
            "with submitters, as keys are free.",
            "0",
            parsers.whole(0, 1_000_000),
        ),
        *bounds.limits(),
        Setting("log_level", "The least weighty messages to log.", "info", parsers.choice(levels)),
        Setting(
            "log_format",
            "How to log: auto is pretty on a terminal and json elsewhere.",
            "auto",
            parsers.choice(("auto", "pretty", "json")),
        ),
    )


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], toml_path: Path | None
) -> Settings:
    """The settings from `flags` (by setting name; None or empty is not given), `environ`, the file.

    Lists are comma-separated in the environment, `models_dir` colon-separated as PATH is; paths in
    the file start from its folder. `InvalidSetting` names the setting and where it came from.
    """
    settings = describe()
    file = _read(toml_path) if toml_path else {}
    names = {setting.name for setting in settings}
    if unknown := sorted((set(flags) | set(file)) - names):
        where = toml_path if unknown[0] in file else "the command line"
        known = ", ".join(setting.name for setting in settings)
        raise InvalidSetting(f"{where}: {unknown[0]!r:.64} is no setting; known are {known}")
    found: dict[str, object] = {}
    for setting in settings:
        value, where, folder = _pick(setting, flags, environ, file, toml_path)
        if where == "default":
            value = _in_data_dir(setting.default, found.get("data_dir"))
        try:
            found[setting.name] = setting.parse(value, folder)
        except ValueError as error:
            raise InvalidSetting(f"{setting.name} (from {where}): {value!r:.200} {error}") from None
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
        raise InvalidSetting(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise InvalidSetting(f"{path}: is no TOML file: {error}") from None
