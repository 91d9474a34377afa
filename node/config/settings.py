"""Settings of a node: what its owner decides, and where each value comes from.

A flag overrides `HELIUM_…` in the environment, which overrides the TOML file, which overrides the
default. Limits come from the file's table `[limits]` only. What all peers must share is not here:
it is in the network document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node.config import parsers
from node.config.limits import Limits
from node.config.setting import Setting, number, setting, settings_of, whole_number
from schemas.errors import HeliumError

# In a default, it stands for the value of the setting `data_dir`.
_DATA_DIR = "<data_dir>"
_LEVELS = ("debug", "info", "warning", "error")
_FORMATS = ("auto", "pretty", "json")


class InvalidSetting(HeliumError, ValueError):
    """A setting is unknown or unusable; the message names it and where it came from."""


@dataclass(frozen=True)
class Settings:
    """All settings of a node. `load` makes them; the defaults here are not expanded yet."""

    data_dir: Path = setting(
        Path("~/.local/share/helium"),
        "Folder of the node's database and audio files.",
        parsers.path,
    )
    network: Path = setting(
        Path(_DATA_DIR) / "network.json",
        "The network document, which all peers of a network share.",
        parsers.path,
    )
    key: Path = setting(
        Path(_DATA_DIR) / "key.pem",
        "The node's private key. The peer id follows from it.",
        parsers.path,
    )
    models_dir: tuple[Path, ...] = setting(
        (Path(_DATA_DIR) / "models",),
        "Folders that hold models as <owner>/<name>, in addition to the shipped models.",
        parsers.paths,
    )
    listen: str = setting(
        "/ip4/0.0.0.0/tcp/4001",
        "Address to listen on. Port 0 takes any free port.",
        parsers.address(parsers.LISTEN, "/ip4/0.0.0.0/tcp/4001"),
    )
    announce: tuple[str, ...] = setting(
        (),
        "Addresses to announce instead of the listening one, for example behind a router.",
        parsers.addresses(parsers.ANNOUNCE, "/dns4/node.example.org/tcp/4001"),
    )
    peers: tuple[str, ...] = setting(
        (),
        "Peers to connect to. A lost connection is dialled again.",
        parsers.addresses(parsers.DIAL, "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."),
    )
    submitters: tuple[str, ...] = setting(
        (),
        "Peer ids whose tasks this node executes. An empty list stands for everyone.",
        parsers.peers,
    )
    engine_threads: int = whole_number(
        0,
        0,
        64,
        "threads",
        "Threads of the engine for one task; 0 takes one per processor, at most 4. They change how "
        "long a task takes and never its result.",
    )
    requester_tasks: int = whole_number(
        0,
        0,
        1_000_000,
        "tasks per hour",
        "Tasks of one requester that this node executes per hour; 0 is no limit. Keys cost "
        "nothing, so use it together with submitters.",
    )
    feed_seconds: float = number(
        5.0,
        0.05,
        3600,
        "seconds",
        "Pause before a peer's feed is read again after a failure, and the longest one while it "
        "brings nothing new. Feeds deliver what gossip lost.",
    )
    blob_days: float = number(
        30.0,
        1,
        36_500,
        "days",
        "How long audio files are kept, outputs of this node included.",
    )
    retention_days: float = number(
        90.0,
        0,
        36_500,
        "days",
        "How long the envelopes of a task, its votes for example, are kept after its deadline, and "
        "at least two days; 0 keeps them for ever. Certificates and evidence are kept for ever.",
    )
    blob_gigabytes: float = number(
        20.0,
        0.1,
        1_000_000,
        "GB",
        "Disk space for audio received from peers. When it is full, the oldest files are deleted. "
        "Inputs of open tasks are kept; if they fill it, submissions with inputs are refused as "
        "busy. Outputs of this node do not count.",
    )
    log_level: str = setting("info", "Least severe level to log.", parsers.choice(_LEVELS))
    log_format: str = setting(
        "auto",
        "Log format. auto is pretty on a terminal and json elsewhere.",
        parsers.choice(_FORMATS),
    )
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class _Sources:
    flags: Mapping[str, object]
    environ: Mapping[str, str]
    file: Mapping[str, object]
    path: Path | None  # of the file

    def pick(self, definition: Setting, data_dir: object) -> tuple[object, str, Path]:
        """Return a setting's value as written, where it comes from, and where its paths start."""
        # click passes None for an absent flag and () for an absent list.
        flag = self.flags.get(definition.name)
        if flag is not None and flag != () and flag != []:
            return flag, definition.flag, Path.cwd()
        if definition.variable in self.environ:
            return self.environ[definition.variable], definition.variable, Path.cwd()
        if self.path and definition.name in self.file:
            return self.file[definition.name], str(self.path), self.path.absolute().parent
        return _in_data_dir(definition.default, data_dir), "default", Path.cwd()


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], toml_path: Path | None
) -> Settings:
    """Return the settings from the flags, the environment and the TOML file.

    `flags` go by setting name; None and an empty list mean that a flag is absent. A list in the
    environment is separated by commas, `models_dir` by colons as PATH is. Paths in the file start
    from its folder. Raises InvalidSetting, which names the setting and where it came from.
    """
    file = _read(toml_path) if toml_path else {}
    sources = _Sources(flags, environ, file, toml_path)
    _check_names(sources)
    values: dict[str, object] = {}
    # `data_dir` is the first setting, because the defaults of others are inside of it.
    for definition in settings_of(Settings):
        value, origin, folder = sources.pick(definition, values.get("data_dir"))
        values[definition.name] = _parse(definition, definition.name, value, origin, folder)
    return Settings(**values, limits=_limits(file.get("limits", {}), toml_path))  # type: ignore[arg-type]


def former_limit(name: str) -> str | None:
    """Return what to do about a limit that was a flag in earlier versions; None for other names."""
    for definition in settings_of(Limits):
        if name in (definition.formerly, definition.name):
            return (
                f"{name} is a limit: set {definition.name} in the table [limits] of the TOML file "
                "(--config)"
            )
    return None


def _check_names(sources: _Sources) -> None:
    """Refuse unknown settings, and limits outside of their table."""
    names = [definition.name for definition in settings_of(Settings)]
    for name in [*sources.flags, *(key for key in sources.file if key != "limits")]:
        if name not in names:
            origin = "the command line" if name in sources.flags else sources.path
            choices = ", ".join([*names, "limits"])
            advice = f"{name!r:.64} is no setting; known are {choices}"
            raise InvalidSetting(f"{origin}: {former_limit(name) or advice}")
    for definition in settings_of(Limits):
        for name in (definition.formerly, definition.name):
            variable = f"HELIUM_{name.upper()}"
            if variable in sources.environ:
                raise InvalidSetting(f"{variable}: {former_limit(name)}")


def _limits(table: object, path: Path | None) -> Limits:
    if not isinstance(table, dict):
        raise InvalidSetting(f"{path}: limits is no table")
    definitions = {definition.name: definition for definition in settings_of(Limits)}
    values = {}
    for name, value in table.items():
        if name not in definitions:
            choices = ", ".join(definitions)
            raise InvalidSetting(f"{path}: {name!r:.64} is no limit; known are {choices}")
        definition = definitions[name]
        values[name] = _parse(definition, f"limits.{name}", value, str(path), Path.cwd())
    return Limits(**values)  # type: ignore[arg-type]  # each of the type that its parser returns


def _parse(definition: Setting, name: str, value: object, origin: str, folder: Path) -> object:
    try:
        return definition.parse(value, folder)
    except ValueError as error:
        shown = error.entry if isinstance(error, parsers.InvalidEntry) else value
        shown = str(shown) if isinstance(shown, Path) else shown
        raise InvalidSetting(f"{name} (from {origin}): {shown!r:.200} {error}") from None


def _in_data_dir(default: object, data_dir: object) -> object:
    if isinstance(default, Path):
        return Path(str(default).replace(_DATA_DIR, str(data_dir)))
    if isinstance(default, tuple):
        return tuple(_in_data_dir(entry, data_dir) for entry in default)
    return default


def _read(path: Path) -> dict[str, object]:
    import tomllib  # here: few commands read a TOML file

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSetting(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise InvalidSetting(f"{path}: is no TOML file: {error}") from None
