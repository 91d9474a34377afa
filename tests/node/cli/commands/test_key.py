import json
import stat
from pathlib import Path

import pytest

from tests.node.cli.conftest import Helium


def test_a_new_key_has_mode_0600_and_its_peer_id_is_shown(helium: Helium) -> None:
    created = helium("key", "new", "node.pem")
    assert created.exit_code == 0
    assert stat.S_IMODE(Path("node.pem").stat().st_mode) == 0o600
    document = json.loads(helium("key", "show", "node.pem", "--json").stdout)
    assert document == {"peer": created.stdout.strip(), "file": "node.pem"}


def test_a_key_is_never_replaced(helium: Helium) -> None:
    helium("key", "new", "node.pem")
    content = Path("node.pem").read_bytes()
    again = helium("key", "new", "node.pem")
    assert again.exit_code == 2
    assert "never overwritten" in again.stderr
    assert Path("node.pem").read_bytes() == content


def test_the_setting_names_the_key_file(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIUM_KEY", "keys/mine.pem")
    created = helium("key", "new")
    assert created.exit_code == 0
    assert helium("key", "show", "keys/mine.pem").stdout == created.stdout


def test_an_encrypted_key_needs_its_passphrase(
    helium: Helium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_KEY_PASSPHRASE", "open sesame")
    created = helium("key", "new", "node.pem")
    assert helium("key", "show", "node.pem").stdout == created.stdout
    monkeypatch.setenv("HELIUM_KEY_PASSPHRASE", "wrong")
    assert "passphrase is wrong" in helium("key", "show", "node.pem").stderr
    monkeypatch.delenv("HELIUM_KEY_PASSPHRASE")
    locked = helium("key", "show", "node.pem")
    assert locked.exit_code == 2
    assert "set HELIUM_KEY_PASSPHRASE" in locked.stderr


def test_a_missing_key_names_the_file_and_the_command(helium: Helium) -> None:
    missing = helium("key", "show", "none.pem")
    assert missing.exit_code == 2
    assert "none.pem does not exist: helium key new creates a key" in missing.stderr
