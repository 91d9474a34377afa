"""Signed bodies: `{"body", "signer", "signature"}` (specification 2)."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.wire.encoding import Document, canonical, domain
from protocol.wire.signing import check_signature, peer_of, signature_of

_DOMAIN = domain("envelope")


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
