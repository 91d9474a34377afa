"""The node's key: an Ed25519 seed in a PKCS#8 PEM file that only its owner can read.

`protocol.wire.signing` derives the peer id and signs. Keys made by OpenSSL
(`openssl genpkey -algorithm ed25519`) work unchanged.
"""

import os
import stat
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from schemas.errors import HeliumError

# An encrypted Ed25519 key has about 300 bytes. A device or a wrong file can be endless.
_MAX_BYTES = 16_384


class UnusableKeyFile(HeliumError):
    """The key file cannot be used; the message says why and what to do."""


def create(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Create a key and write it to `path` with mode 0600. An existing file is never overwritten.

    Raises UnusableKeyFile or OSError; then no file is left behind.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UnusableKeyFile(f"{path} cannot be created: {path.parent} is no folder") from None
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UnusableKeyFile(f"{path} exists already, and a key is never overwritten") from None
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 a descriptor, not a path
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise
    return key


def load(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Return the key in `path`, decrypted with the passphrase if it is encrypted.

    Raises UnusableKeyFile if the file is absent, readable by others, encrypted with another
    passphrase, or no Ed25519 key.
    """
    pem = _read(path)
    encrypted = b"ENCRYPTED" in pem.partition(b"\n")[0]
    if encrypted and not passphrase:
        raise UnusableKeyFile(f"{path} is encrypted: a passphrase is needed")
    try:
        key = load_pem_private_key(
            pem, _passphrase_bytes(passphrase) if encrypted and passphrase else None
        )
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        reason = "the passphrase is wrong, or the file damaged" if encrypted else "it is no PEM key"
        raise UnusableKeyFile(f"{path} cannot be read: {reason}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKeyFile(f"{path} holds another kind of key: only Ed25519 is used")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnusableKeyFile(f"{path} is no regular file")
            if status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise UnusableKeyFile(
                    f"{path} is readable by others (mode {mode:04o}): run chmod 600 {path}"
                )
            return file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise UnusableKeyFile(f"{path} does not exist: helium key new creates a key") from None
    except OSError as error:
        raise UnusableKeyFile(f"{path} cannot be read: {error.strerror}") from None


def _encryption(passphrase: str | None) -> KeySerializationEncryption:
    if passphrase is None:
        return NoEncryption()
    if not passphrase:
        raise UnusableKeyFile("an empty passphrase protects nothing: give another, or none")
    return BestAvailableEncryption(_passphrase_bytes(passphrase))


def _passphrase_bytes(passphrase: str) -> bytes:
    """Return the bytes of a passphrase; those of the environment need not be UTF-8."""
    return passphrase.encode("utf-8", "surrogateescape")
