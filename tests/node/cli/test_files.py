import stat
from pathlib import Path

import pytest

from node.cli import files
from node.cli.exit_codes import Exit, Failure


def test_write_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    files.write(path, b"one")
    files.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_write_without_over_keeps_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b"old")
    with pytest.raises(Failure, match="--force"):
        files.write(path, b"new", over=False)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"none/c\.json: cannot be written: No such file") as raised:
        files.write(tmp_path / "none" / "c.json", b"")
    assert raised.value.exit_code == Exit.FAULT


def test_check_writable_leaves_no_file(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        files.check_writable(tmp_path / "none" / "c.json")


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot be read") as raised:
        files.read(tmp_path / "none")
    assert raised.value.exit_code == Exit.USAGE
