"""The node's key: an Ed25519 seed in a PKCS#8 PEM file that only its owner can read.

The peer id and signatures are `protocol.wire.signing`'s. Keys made by OpenSSL
(`openssl genpkey -algorithm ed25519`) can be used as they are.
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

_LIMIT = 16384  # bytes; an encrypted Ed25519 key has some 300


class UnusableKeyFile(HeliumError):
    """The key file cannot be used; the message says why, and what to do."""


def create(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Make a new key and write it to `path`, mode 0600; never over a file that is there."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UnusableKeyFile(f"{path} is there already, and a key is never overwritten") from None
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
    """The key in `path`; `UnusableKeyFile` if it is missing, open to others, locked or no key."""
    pem = _read(path)
    locked = b"ENCRYPTED" in pem.partition(b"\n")[0]
    if locked and not passphrase:
        raise UnusableKeyFile(f"{path} is encrypted: a passphrase is needed")
    try:
        key = load_pem_private_key(pem, passphrase.encode() if locked and passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        reason = "the passphrase is wrong, or the file damaged" if locked else "it is no PEM key"
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
                    f"{path} is open to others (mode {mode:04o}): run chmod 600 {path}"
                )
            return file.read(_LIMIT)
    except FileNotFoundError:
        raise UnusableKeyFile(f"{path} is not there: helium key new makes a key") from None
    except OSError as error:
        raise UnusableKeyFile(f"{path} cannot be read: {error.strerror}") from None


def _encryption(passphrase: str | None) -> KeySerializationEncryption:
    if passphrase is None:
        return NoEncryption()
    if not passphrase:
        raise UnusableKeyFile("an empty passphrase protects nothing: give one, or none at all")
    return BestAvailableEncryption(passphrase.encode())
