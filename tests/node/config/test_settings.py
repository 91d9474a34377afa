from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from node.config.settings import InvalidSetting, Settings, describe, load

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
        max_queue=64,
        feed_seconds=5.0,
        blob_days=30.0,
        blob_gigabytes=20.0,
        submitters=(),
        requester_tasks=0,
        max_connections=300,
        address_connections=32,
        address_handshakes=60.0,
        peer_connections=4,
        peer_messages=100.0,
        peer_bytes=33_554_432,
        peer_streams=100.0,
        peer_open_streams=64,
        peer_submissions=600.0,
        max_open=1000,
        peer_queue=4096,
        peer_queue_bytes=2_097_152,
        address_upgrades=16,
        upgrade_seconds=4.0,
        ban_points=20.0,
        ban_seconds=300.0,
        forgiven_points=0.1,
        idle_seconds=600.0,
        reader_bytes=8192,
        peer_watches=48,
        max_watches=1024,
        peer_reads=8,
        max_reads=64,
        peer_uploads=4,
        max_uploads=32,
        peer_feeds=2,
        max_feeds=32,
        log_level="info",
        log_format="auto",
    )


def test_defaults_follow_the_data_folder(tmp_path: Path) -> None:
    settings = load({"data_dir": tmp_path / "a:b"}, {}, None)
    assert settings.key == tmp_path / "a:b" / "key.pem"
    assert settings.models_dir == (tmp_path / "a:b" / "models",)


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = _file(tmp_path, "max_queue = 3")
    environ = {"HELIUM_MAX_QUEUE": "2", "MAX_QUEUE": "9"}
    assert load({"max_queue": 1}, environ, file).max_queue == 1
    assert load({"max_queue": None}, environ, file).max_queue == 2
    assert load({}, {}, file).max_queue == 3
    assert load({}, {}, None).max_queue == 64


@pytest.mark.parametrize("nothing", [None, (), []])
def test_a_flag_that_was_not_given_hides_nothing(nothing: object) -> None:
    assert load({"peers": nothing}, {"HELIUM_PEERS": PEER}, None).peers == (PEER,)


def test_lists(tmp_path: Path) -> None:
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


def test_an_empty_variable_empties_a_list(tmp_path: Path) -> None:
    file = _file(tmp_path, f'peers = ["{PEER}"]')
    assert load({}, {"HELIUM_PEERS": ""}, file).peers == ()


def test_paths_start_where_they_were_written(
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
    ("max_queue", "10000", 10000),
    ("feed_seconds", "0.5", 0.5),
    ("feed_seconds", 2, 2.0),
    ("blob_days", "1.5", 1.5),
    ("blob_gigabytes", "0.5", 0.5),
    ("log_level", "debug", "debug"),
    ("log_format", "json", "json"),
]


@pytest.mark.parametrize(("name", "given", "value"), ACCEPTED)
def test_accepted(name: str, given: object, value: object) -> None:
    assert getattr(load({name: given}, {}, None), name) == value


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
    ("max_queue", "many", "is no whole number from 1 to 10000"),
    ("max_queue", 0, "is no whole number"),
    ("max_queue", True, "is no whole number"),
    ("max_queue", 1.0, "is no whole number"),
    ("max_queue", "9" * 5000, "is no whole number"),
    ("feed_seconds", "nan", "is no number from 0.05 to 3600"),
    ("feed_seconds", 0, "is no number"),
    ("blob_days", "0.5", "is no number from 1 to 36500"),
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


@pytest.mark.parametrize(("name", "given", "reason"), REFUSED)
def test_refused(name: str, given: object, reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason) as raised:
        load({name: given}, {}, None)
    assert str(raised.value).startswith(f"{name} (from --{name.replace('_', '-')}): ")


def test_a_refusal_names_where_the_value_came_from(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidSetting, match=r"max_queue \(from HELIUM_MAX_QUEUE\): 'x' is no whole"
    ):
        load({}, {"HELIUM_MAX_QUEUE": "x"}, None)
    file = _file(tmp_path, 'max_queue = "x"')
    with pytest.raises(InvalidSetting, match=rf"max_queue \(from {file}\): 'x' is no whole"):
        load({}, {}, file)


def test_an_unknown_setting(tmp_path: Path) -> None:
    file = _file(tmp_path, "max_que = 3")
    with pytest.raises(
        InvalidSetting, match=rf"{file}: 'max_que' is no setting; known are data_dir"
    ):
        load({}, {}, file)
    with pytest.raises(InvalidSetting, match="the command line: 'max_que' is no setting"):
        load({"max_que": 3}, {}, None)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read: No such file"):
        load({}, {}, tmp_path / "absent.toml")
    with pytest.raises(InvalidSetting, match="is no TOML file"):
        load({}, {}, _file(tmp_path, "max_queue ="))
    (tmp_path / "latin.toml").write_bytes(b'key = "\xe9"')
    with pytest.raises(InvalidSetting, match="is no TOML file"):
        load({}, {}, tmp_path / "latin.toml")


def test_every_setting_is_described_in_order() -> None:
    assert [setting.name for setting in describe()] == [field.name for field in fields(Settings)]
    for setting in describe():
        assert setting.reason.endswith(".")
        assert "\n" not in setting.reason
    queue = next(setting for setting in describe() if setting.name == "max_queue")
    assert (queue.flag, queue.variable) == ("--max-queue", "HELIUM_MAX_QUEUE")


@pytest.mark.parametrize(
    "text",
    ['peers = "' + "x" * 9_000 + '"', "x" * 9_000 + " = 1", "submitters = ['" + "x" * 9_000 + "']"],
)
def test_a_refusal_is_short_however_long_the_value(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        load({}, {}, _file(tmp_path, text))
    assert len(str(refusal.value)) < 1_000
