import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from node.config.limits import Limits
from node.config.setting import Setting, settings_of
from node.config.settings import InvalidSetting, Settings, load

ROOT = Path(__file__).resolve().parents[3]
PEER = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW" + "a" * 44
PEER_6 = "/ip6/::1/tcp/4001/p2p/12D3KooW" + "b" * 44


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "etc" / "helium.toml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".local/share/helium"
    assert load({}, {}, None) == Settings(
        data_dir=folder,
        network=folder / "network.json",
        key=folder / "key.pem",
        models_dir=(folder / "models",),
        listen="/ip4/0.0.0.0/tcp/4001",
        announce=(),
        peers=(),
        submitters=(),
        requester_tasks=0,
        feed_seconds=5.0,
        blob_days=30.0,
        retention_days=90.0,
        blob_gigabytes=20.0,
        log_level="info",
        log_format="auto",
        limits=Limits(
            max_connections=300,
            max_connections_per_address=32,
            max_streams_per_peer=64,
            streams_per_second=100.0,
            messages_per_second=100.0,
            bytes_per_second=33_554_432,
            submissions_per_minute=600.0,
            max_open_tasks=1000,
            max_queued_tasks=64,
            ban_points=20.0,
            ban_seconds=300.0,
            idle_seconds=600.0,
        ),
    )


def test_default_paths_are_in_the_data_folder(tmp_path: Path) -> None:
    settings = load({"data_dir": tmp_path / "a:b"}, {}, None)
    assert settings.key == tmp_path / "a:b" / "key.pem"
    assert settings.models_dir == (tmp_path / "a:b" / "models",)


def test_flag_overrides_environment_overrides_file_overrides_default(tmp_path: Path) -> None:
    file = _file(tmp_path, "requester_tasks = 3")
    environ = {"HELIUM_REQUESTER_TASKS": "2", "REQUESTER_TASKS": "9"}
    assert load({"requester_tasks": 1}, environ, file).requester_tasks == 1
    assert load({"requester_tasks": None}, environ, file).requester_tasks == 2
    assert load({}, {}, file).requester_tasks == 3
    assert load({}, {}, None).requester_tasks == 0


@pytest.mark.parametrize("nothing", [None, (), []])
def test_absent_flag_overrides_nothing(nothing: object) -> None:
    assert load({"peers": nothing}, {"HELIUM_PEERS": PEER}, None).peers == (PEER,)


def test_lists_are_read_from_every_source(tmp_path: Path) -> None:
    file = _file(tmp_path, f'peers = ["{PEER}", "{PEER_6}"]\nmodels_dir = ["m", "/n"]')
    from_file = load({}, {}, file)
    assert from_file.peers == (PEER, PEER_6)
    assert from_file.models_dir == (file.parent / "m", Path("/n"))
    environ = {"HELIUM_PEERS": f"{PEER}, {PEER_6},", "HELIUM_MODELS_DIR": "/m:/n"}
    from_environment = load({}, environ, None)
    assert from_environment.peers == (PEER, PEER_6)
    assert from_environment.models_dir == (Path("/m"), Path("/n"))
    from_flags = load({"peers": (PEER,), "models_dir": [Path("/m")]}, {}, None)
    assert from_flags.peers == (PEER,)
    assert from_flags.models_dir == (Path("/m"),)


def test_empty_variable_empties_a_list(tmp_path: Path) -> None:
    file = _file(tmp_path, f'peers = ["{PEER}"]')
    assert load({}, {"HELIUM_PEERS": ""}, file).peers == ()


def test_relative_paths_start_where_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/anna")
    file = _file(tmp_path, 'key = "k.pem"\nnetwork = "~/net.json"')
    assert load({}, {}, file).key == file.parent / "k.pem"
    assert load({}, {}, file.relative_to(tmp_path)).key == file.parent / "k.pem"
    assert load({}, {}, file).network == Path("/home/anna/net.json")
    assert load({"key": "k.pem"}, {}, file).key == tmp_path / "k.pem"
    assert load({}, {"HELIUM_KEY": "k.pem"}, file).key == tmp_path / "k.pem"


ACCEPTED: list[tuple[str, object, object]] = [
    ("listen", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0"),
    ("listen", "/ip6/::/tcp/4001", "/ip6/::/tcp/4001"),
    ("announce", "/dns4/node.example.org/tcp/443", ("/dns4/node.example.org/tcp/443",)),
    ("requester_tasks", "10000", 10000),
    ("feed_seconds", "0.5", 0.5),
    ("feed_seconds", 2, 2.0),
    ("blob_days", "1.5", 1.5),
    ("retention_days", "0", 0.0),
    ("retention_days", 365, 365.0),
    ("blob_gigabytes", "0.5", 0.5),
    ("log_level", "debug", "debug"),
    ("log_format", "json", "json"),
]


@pytest.mark.parametrize(("name", "written", "value"), ACCEPTED)
def test_valid_value_is_accepted(name: str, written: object, value: object) -> None:
    assert getattr(load({name: written}, {}, None), name) == value


REFUSED: list[Any] = [
    ("listen", "0.0.0.0:4001", "is not of the form /ip4/0.0.0.0/tcp/4001"),
    ("listen", "/ip4/0.0.0.0/tcp/65536", "is not of the form"),
    ("listen", "/ip4/0.0.0.0/udp/4001", "is not of the form"),
    ("listen", ["/ip4/0.0.0.0/tcp/4001"], "is not of the form"),
    ("announce", PEER, "is not of the form /dns4/"),
    ("peers", "/ip4/127.0.0.1/tcp/4001", "is not of the form /ip4/192.0.2.1/tcp/4001/p2p/"),
    ("peers", [PEER, 1], "is not of the form"),
    ("peers", PEER + "\n/x", "is not of the form"),
    ("peers", 5, "is no list"),
    ("requester_tasks", "many", "is no whole number from 0 to 1000000"),
    ("requester_tasks", -1, "is no whole number"),
    ("requester_tasks", True, "is no whole number"),
    ("requester_tasks", 1.0, "is no whole number"),
    ("requester_tasks", "9" * 5000, "is no whole number"),
    ("feed_seconds", "nan", "is no number from 0.05 to 3600"),
    ("feed_seconds", 0, "is no number"),
    ("blob_days", "0.5", "is no number from 1 to 36500"),
    ("retention_days", "-1", "is no number from 0 to 36500"),
    ("blob_gigabytes", "0", "is no number from 0.1 to"),
    ("feed_seconds", True, "is no number"),
    ("feed_seconds", "soon", "is no number"),
    ("feed_seconds", "1" * 400, "is no number"),
    pytest.param("feed_seconds", 10**400, "is no number", id="huge"),
    ("log_level", "loud", "is none of debug, info, warning, error"),
    ("log_format", 1, "is none of auto, pretty, json"),
    ("data_dir", "", "is no path"),
    ("key", "a\0b", "is no path"),
    ("key", 5, "is no path"),
    ("key", "~no-such-user/k", "names an unknown home folder"),
    ("models_dir", [""], "is no path"),
]


@pytest.mark.parametrize(("name", "written", "reason"), REFUSED)
def test_invalid_value_is_refused(name: str, written: object, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason) as raised:
        load({name: written}, {}, None)
    assert str(raised.value).startswith(f"{name} (from --{name.replace('_', '-')}): ")


def test_error_names_the_source_of_the_value(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidSetting, match=r"requester_tasks \(from HELIUM_REQUESTER_TASKS\): 'x' is no whole"
    ):
        load({}, {"HELIUM_REQUESTER_TASKS": "x"}, None)
    file = _file(tmp_path, 'requester_tasks = "x"')
    with pytest.raises(InvalidSetting, match=rf"requester_tasks \(from {file}\): 'x' is no whole"):
        load({}, {}, file)


def test_unknown_setting_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, "max_que = 3")
    with pytest.raises(
        InvalidSetting, match=rf"{file}: 'max_que' is no setting; known are data_dir"
    ):
        load({}, {}, file)
    with pytest.raises(InvalidSetting, match="the command line: 'max_que' is no setting"):
        load({"max_que": 3}, {}, None)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read: No such file"):
        load({}, {}, tmp_path / "absent.toml")
    with pytest.raises(InvalidSetting, match="is no TOML file"):
        load({}, {}, _file(tmp_path, "requester_tasks ="))
    (tmp_path / "latin.toml").write_bytes(b'key = "\xe9"')
    with pytest.raises(InvalidSetting, match="is no TOML file"):
        load({}, {}, tmp_path / "latin.toml")


@pytest.mark.parametrize("group", [Settings, Limits])
def test_every_field_is_a_setting_with_a_help_sentence(group: type) -> None:
    names = [field.name for field in fields(group) if field.name != "limits"]
    assert [setting.name for setting in settings_of(group)] == names
    for setting in settings_of(group):
        assert setting.help.endswith(".")
        assert "\n" not in setting.help


def test_setting_names_its_flag_and_its_variable() -> None:
    (setting,) = [s for s in settings_of(Settings) if s.name == "requester_tasks"]
    assert (setting.flag, setting.variable) == ("--requester-tasks", "HELIUM_REQUESTER_TASKS")


def test_at_most_twelve_limits_can_be_set() -> None:
    assert len(settings_of(Limits)) == 12


def test_limits_come_from_their_table(tmp_path: Path) -> None:
    file = _file(tmp_path, "[limits]\nmax_connections = 4\nban_seconds = 1.5")
    assert load({}, {}, file).limits == Limits(max_connections=4, ban_seconds=1.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_connections = 3", r"limits.max_connections \(from .*\): 3 is no whole number from 4"),
        ("max_watches = 3", "'max_watches' is no limit; known are max_connections, "),
        ("limits = 3", "'limits' is no limit"),
    ],
)
def test_unusable_limit_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason):
        load({}, {}, _file(tmp_path, f"[limits]\n{text}"))


def test_limits_must_be_a_table(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="limits is no table"):
        load({}, {}, _file(tmp_path, "limits = 3"))


@pytest.mark.parametrize("limit", settings_of(Limits), ids=lambda limit: str(limit.name))
def test_limit_outside_of_its_table_is_refused_with_the_key(tmp_path: Path, limit: Setting) -> None:
    reason = rf"set {limit.name} in the table \[limits\]"
    with pytest.raises(InvalidSetting, match=rf"the command line: {limit.formerly} .*{reason}"):
        load({limit.formerly: 5}, {}, None)
    with pytest.raises(InvalidSetting, match=rf"HELIUM_{limit.formerly.upper()}: .*{reason}"):
        load({}, {f"HELIUM_{limit.formerly.upper()}": "5"}, None)
    with pytest.raises(InvalidSetting, match=rf"helium.toml: {limit.name} .*{reason}"):
        load({}, {}, _file(tmp_path, f"{limit.name} = 5"))


def test_documentation_matches_the_definitions() -> None:
    """On a failure, run `scripts/settings_doc`."""
    subprocess.run([sys.executable, "-m", "scripts.settings_doc", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "text",
    ['peers = "' + "x" * 9_000 + '"', "x" * 9_000 + " = 1", "submitters = ['" + "x" * 9_000 + "']"],
)
def test_error_is_short_for_long_values(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        load({}, {}, _file(tmp_path, text))
    assert len(str(refusal.value)) < 1_000
