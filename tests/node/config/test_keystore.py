import os
import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InternalError
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from node.config import keystore
from node.config.keystore import UnusableKeyFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "key.pem"


@pytest.mark.parametrize("passphrase", [None, "correct horse", "fünf Wörter"])
def test_a_created_key_is_loaded(path: Path, passphrase: str | None) -> None:
    created = keystore.create(path, passphrase)
    loaded = keystore.load(path, passphrase)
    assert loaded.private_bytes_raw() == created.private_bytes_raw()
    assert len(loaded.private_bytes_raw()) == 32


def test_each_created_key_is_different(tmp_path: Path) -> None:
    first, second = (keystore.create(tmp_path / name) for name in ("one", "two"))
    assert first.private_bytes_raw() != second.private_bytes_raw()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_key_file_is_readable_by_its_owner_only(path: Path, umask: int) -> None:
    previous = os.umask(umask)
    try:
        keystore.create(path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_key_file_is_private_while_it_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _: modes.append(stat.S_IMODE(path.stat().st_mode)))
    monkeypatch.setattr(os, "chmod", lambda *_: pytest.fail("the mode is set on opening"))
    keystore.create(path)
    assert modes == [0o600]


def test_key_file_is_pkcs8(path: Path) -> None:
    keystore.create(path)
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_encrypted_key_file_does_not_contain_the_seed(path: Path) -> None:
    keystore.create(path, "correct horse")
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")


def test_key_is_never_overwritten(path: Path) -> None:
    keystore.create(path)
    content = path.read_bytes()
    with pytest.raises(UnusableKeyFile, match="exists already"):
        keystore.create(path)
    assert path.read_bytes() == content


def test_dangling_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnusableKeyFile, match="exists already"):
        keystore.create(link)
    assert not (tmp_path / "elsewhere").exists()


def test_failing_disk_leaves_no_partial_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError):  # noqa: PT011 that very one
        keystore.create(path)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_key_file_readable_by_others_is_refused(path: Path, mode: int) -> None:
    keystore.create(path)
    path.chmod(mode)
    with pytest.raises(UnusableKeyFile, match=rf"mode {mode:04o}\): run chmod 600"):
        keystore.load(path)
    path.chmod(0o400)
    keystore.load(path)


def test_missing_or_wrong_passphrase_is_refused(path: Path) -> None:
    keystore.create(path, "correct horse")
    for missing in (None, ""):
        with pytest.raises(UnusableKeyFile, match="a passphrase is needed"):
            keystore.load(path, missing)
    with pytest.raises(UnusableKeyFile, match="the passphrase is wrong, or the file damaged"):
        keystore.load(path, "battery staple")


def test_passphrase_is_ignored_for_an_unencrypted_key(path: Path) -> None:
    created = keystore.create(path)
    assert keystore.load(path, "any").private_bytes_raw() == created.private_bytes_raw()


def test_empty_passphrase_is_refused(path: Path) -> None:
    with pytest.raises(UnusableKeyFile, match="an empty passphrase"):
        keystore.create(path, "")
    assert not path.exists()


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 32, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
)
def test_file_that_is_no_key_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(UnusableKeyFile, match="it is no PEM key"):
        keystore.load(_write(path, content))


def test_key_of_another_algorithm_is_refused(path: Path) -> None:
    key = x25519.X25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(UnusableKeyFile, match="only Ed25519 is used"):
        keystore.load(_write(path, pem))


def test_key_made_by_another_program_is_loaded(path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert keystore.load(_write(path, pem)).private_bytes_raw() == bytes(range(32))


def test_absent_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableKeyFile, match="helium key new"):
        keystore.load(tmp_path / "key.pem")
    with pytest.raises(UnusableKeyFile, match="cannot be read"):
        keystore.load(tmp_path)
    with pytest.raises(UnusableKeyFile, match="is no regular file"):
        keystore.load(Path(os.devnull))


def test_unexplained_openssl_error_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by fuzzing: some damaged keys are an `InternalError` of the library's."""
    keystore.create(path)

    def load(*_: object) -> None:
        raise InternalError("Unknown OpenSSL error", [])

    monkeypatch.setattr(keystore, "load_pem_private_key", load)
    with pytest.raises(UnusableKeyFile, match="it is no PEM key"):
        keystore.load(path)


@pytest.mark.parametrize("name", ["file/key.pem", "file/folder/key.pem"])
def test_a_key_beneath_a_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(keystore.UnusableKeyFile, match=r"cannot be created: .* is no folder"):
        keystore.create(tmp_path / name)
