"""Peer ids, Ed25519 signatures and signed envelopes (specification 2).

A peer is its libp2p peer id: base58btc of the identity multihash of its Ed25519 public key in
libp2p's protobuf form. The public key is read back from it; no key is ever looked up.
"""

import functools
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import Document, canonical, domain

# multihash identity (0x00) of 36 bytes (0x24); protobuf: field 1 = Ed25519 (1), field 2 = 32 bytes
_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
_PEER_BYTES = len(_PREFIX) + 32
_DOMAIN = domain("envelope")


def peer_of(key: Ed25519PublicKey | Ed25519PrivateKey) -> str:
    """Return the peer id (`12D3KooW…`, 52 characters) of an Ed25519 key."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return str(base58.b58encode(_PREFIX + public.public_bytes_raw()), "ascii")


@functools.lru_cache(maxsize=1024)
def public_key_of(peer: str) -> Ed25519PublicKey:
    """Return the public key that a peer id carries. Raises Rejected(MALFORMED)."""
    try:
        raw = base58.b58decode(peer)
        written = str(base58.b58encode(raw), "ascii")
    except ValueError:
        raise Rejected(Rejection.MALFORMED, f"{peer[:64]!r} is no peer id") from None
    if written != peer or len(raw) != _PEER_BYTES or not raw.startswith(_PREFIX):
        raise Rejected(Rejection.MALFORMED, f"{peer[:64]!r} is no Ed25519 peer id")
    return Ed25519PublicKey.from_public_bytes(raw[len(_PREFIX) :])


def signature_of(key: Ed25519PrivateKey, message: bytes) -> str:
    """Return the Ed25519 signature as 86 base64url characters."""
    return urlsafe_b64encode(key.sign(message)).rstrip(b"=").decode("ascii")


def check_signature(peer: str, message: bytes, signature: str) -> None:
    """Raise Rejected(BAD_SIGNATURE) unless `signature` is the peer's over `message`.

    Only the one base64url spelling of the 64 bytes is taken: the last character has four unused
    bits, and accepting any would let a byte of a certificate change unnoticed.
    """
    try:
        raw = urlsafe_b64decode(signature + "==")
        if urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != signature:
            raise ValueError("not the canonical spelling")
        public_key_of(peer).verify(raw, message)
    except (InvalidSignature, ValueError):
        raise Rejected(
            Rejection.BAD_SIGNATURE, f"the signature is not one of {peer} over this body"
        ) from None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body and whose it is. Equal envelopes have equal canonical bytes."""

    body: Document
    signer: str
    signature: str

    def document(self) -> Document:
        """Return the envelope as the JSON object that travels."""
        return {"body": self.body, "signer": self.signer, "signature": self.signature}

    def encode(self) -> bytes:
        """Return the canonical bytes of the envelope."""
        return canonical(self.document())

    def verify(self) -> None:
        """Raise Rejected(BAD_SIGNATURE) unless the signer signed exactly this body."""
        check_signature(self.signer, _DOMAIN + canonical(self.body), self.signature)


def sign(body: Document, key: Ed25519PrivateKey) -> Envelope:
    """Return the envelope of `body`, signed over "helium/1/envelope", 0x00, canonical(body)."""
    return Envelope(body, peer_of(key), signature_of(key, _DOMAIN + canonical(body)))
