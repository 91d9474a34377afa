"""Peer ids, Ed25519 signatures and signed envelopes (specification 2).

A peer is its libp2p peer id: base58btc of the identity multihash of its Ed25519 public key in
libp2p's protobuf form. The public key is decoded from the id; no key is ever looked up.
"""

import functools
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import InitVar, dataclass, field

import base58
import nacl.bindings
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import Document, canonical, domain, tagged_hash

# The multihash header, identity (0x00) of 36 bytes (0x24), then libp2p's protobuf header: field 1
# is the key type Ed25519 (1), field 2 is a key of 32 bytes (0x20).
_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
_PEER_BYTES = len(_PREFIX) + 32

# Decoding a peer id costs as much as a hash or two, and a node meets the same few peers. The bound
# keeps strangers' ids from filling memory.
_CACHED_KEYS = 1024

# Precedes the signed bytes, so that a signature cannot be taken for one of another use.
_ENVELOPE_DOMAIN = domain("envelope")

# The encoding of the identity of the curve: y = 1, x = 0. As `R` it makes a signature that shows
# its secret, and verifiers disagree on it.
_IDENTITY = b"\x01" + bytes(31)

# The beginning of an envelope's canonical bytes.
_BODY = b'{"body":'

# 64 bytes in base64url without padding.
SIGNATURE_CHARACTERS = 86


def peer_of(key: Ed25519PublicKey | Ed25519PrivateKey) -> str:
    """Return the peer id (`12D3KooW…`, 52 characters) of an Ed25519 key."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return str(base58.b58encode(_PREFIX + public.public_bytes_raw()), "ascii")


@functools.lru_cache(maxsize=_CACHED_KEYS)
def public_key_of(peer: str) -> Ed25519PublicKey:
    """Return the public key that a peer id carries. Raises Rejected(MALFORMED).

    A key is a canonically encoded point of the curve's prime-order subgroup other than the
    identity (specification 2.3). For a key of small order anyone can sign.
    """
    try:
        raw = base58.b58decode(peer)
        canonical_id = str(base58.b58encode(raw), "ascii")
    except ValueError:
        raise Rejected(Rejection.MALFORMED, f"{peer[:64]!r} is no peer id") from None
    if canonical_id != peer or len(raw) != _PEER_BYTES or not raw.startswith(_PREFIX):
        raise Rejected(Rejection.MALFORMED, f"{peer[:64]!r} is no Ed25519 peer id")
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(raw[len(_PREFIX) :]):
        raise Rejected(Rejection.MALFORMED, f"{peer[:64]!r} carries no valid Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(raw[len(_PREFIX) :])


def signature_of(key: Ed25519PrivateKey, message: bytes) -> str:
    """Return the Ed25519 signature of `message` as 86 base64url characters, without padding."""
    return urlsafe_b64encode(key.sign(message)).rstrip(b"=").decode("ascii")


def check_signature(peer: str, message: bytes, signature: str) -> None:
    """Raise Rejected(BAD_SIGNATURE) unless `signature` is the peer's over `message`.

    A peer id without a valid key is MALFORMED.

    The rule (specification 2.5): S < L, R is not the identity, and the encoding of [S]B − [k]A is
    R byte for byte. OpenSSL checks all but the identity. Only one base64url spelling of the 64
    bytes is accepted. The last character has four unused bits; if any value passed, a byte of a
    certificate could change unnoticed.
    """
    key = public_key_of(peer)
    try:
        raw = urlsafe_b64decode(signature + "==")
        if urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != signature:
            raise ValueError("not the canonical spelling")
        if raw[:32] == _IDENTITY:
            raise ValueError("R is the identity")
        key.verify(raw, message)
    except (InvalidSignature, ValueError):
        raise Rejected(
            Rejection.BAD_SIGNATURE, f"the signature is not one of {peer} over this body"
        ) from None


def envelope_id(text: bytes) -> str:
    """Return the id of the envelope with these canonical bytes; nothing is parsed."""
    return tagged_hash("envelope", text).hex()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed body: `{"body", "signer", "signature"}`. Equal envelopes have equal bytes.

    Its canonical bytes are kept: the size check, the signature check, the hashes, the journal and
    the comparison of votes all need them.
    """

    body: Document
    signer: str
    signature: str
    encoded: InitVar[bytes | None] = None
    """The canonical bytes of the envelope, where they are known."""
    _encoded: bytes = field(init=False, repr=False, compare=False)
    _body_end: int = field(init=False, repr=False, compare=False)

    def __post_init__(self, encoded: bytes | None) -> None:
        # RFC 8785 sorts the members by name.
        tail = b',"signature":%b,"signer":%b}' % (canonical(self.signature), canonical(self.signer))
        text = _BODY + canonical(self.body) + tail if encoded is None else encoded
        object.__setattr__(self, "_encoded", text)
        object.__setattr__(self, "_body_end", len(text) - len(tail))

    @property
    def body_bytes(self) -> bytes:
        """The canonical bytes of the body."""
        return self._encoded[len(_BODY) : self._body_end]

    def document(self) -> Document:
        """Return the envelope as the JSON object that travels."""
        return {"body": self.body, "signer": self.signer, "signature": self.signature}

    def encode(self) -> bytes:
        """Return the canonical bytes of the envelope."""
        return self._encoded

    @property
    def id(self) -> str:
        """The envelope's id, which covers the signature: 64 hex characters (specification 2.4)."""
        return envelope_id(self._encoded)

    def verify(self) -> None:
        """Raise Rejected(BAD_SIGNATURE) unless the signer signed exactly this body."""
        check_signature(self.signer, _ENVELOPE_DOMAIN + self.body_bytes, self.signature)


def sign(body: Document, key: Ed25519PrivateKey) -> Envelope:
    """Return the envelope of `body`, signed over "helium/2/envelope", 0x00, canonical(body)."""
    return Envelope(body, peer_of(key), signature_of(key, _ENVELOPE_DOMAIN + canonical(body)))
