from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Rejection
from protocol.wire.encoding import canonical
from protocol.wire.signing import (
    Envelope,
    check_signature,
    peer_of,
    public_key_of,
    sign,
    signature_of,
)
from tests.protocol.rejections import rejected
from tests.support import fixtures

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ORDER = 2**252 + 27742317777372353535851937790883648493

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def spelled(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_signatures_match_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    expected = spelled(bytes.fromhex(signature))
    assert public_key_of(peer_of(key)).public_bytes_raw().hex() == public
    assert signature_of(key, bytes.fromhex(message)) == expected
    check_signature(peer_of(key), bytes.fromhex(message), expected)


def test_peer_id_has_libp2p_format() -> None:
    """The multihash 0x00 0x24 of the protobuf 08 01 12 20 and the key, in base58btc."""
    key = fixtures.key(0).public_key()
    raw = bytes.fromhex("002408011220") + key.public_bytes_raw()
    assert peer_of(key) == peer_of(fixtures.key(0)) == base58.b58encode(raw).decode()
    assert peer_of(key).startswith("12D3KooW")
    assert len(peer_of(key)) == 52


def test_peer_id_of_libp2p_test_key() -> None:
    """The Ed25519 test key of the libp2p specification (peer-ids.md)."""
    public = bytes.fromhex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
    raw = bytes.fromhex("002408011220") + public
    assert public_key_of(base58.b58encode(raw).decode()).public_bytes_raw() == public


def altered(raw: bytes, at: int, value: int) -> str:
    changed = bytearray(raw)
    changed[at] = value
    return str(base58.b58encode(bytes(changed)), "ascii")


RAW = base58.b58decode(fixtures.peer(0))


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "0OIl",
        "é" * 52,
        "\ud800",
        fixtures.peer(0)[:-1],
        fixtures.peer(0) + "1",
        "1" + fixtures.peer(0),
        fixtures.peer(0).replace("12D3", "1OD3"),
        altered(RAW, 0, 0x12),
        altered(RAW, 1, 0x23),
        altered(RAW, 3, 0x00),
        altered(RAW, 3, 0x02),
        altered(RAW, 4, 0x1A),
        altered(RAW, 5, 0x1F),
        base58.b58encode(RAW[:-1]).decode(),
        base58.b58encode(RAW + b"\0").decode(),
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
    ],
)
def test_invalid_peer_id_is_malformed(peer: str) -> None:
    with rejected(Rejection.MALFORMED, "peer id"):
        public_key_of(peer)


@pytest.mark.parametrize("added", [" ", "\n", "\t", "\x00", "\u2028"])
def test_peer_id_with_extra_characters_is_malformed(added: str) -> None:
    for peer in (fixtures.peer(0) + added, added + fixtures.peer(0)):
        with rejected(Rejection.MALFORMED):
            public_key_of(peer)


def test_signature_is_bound_to_peer_and_message() -> None:
    signature = signature_of(fixtures.key(0), b"message")
    check_signature(fixtures.peer(0), b"message", signature)
    for peer, message in ((fixtures.peer(1), b"message"), (fixtures.peer(0), b"messagf")):
        with rejected(Rejection.BAD_SIGNATURE, peer):
            check_signature(peer, message, signature)


@pytest.mark.parametrize("index", range(4))
def test_only_canonical_last_character_is_accepted(index: int) -> None:
    message = b"message %d" % index
    signature = signature_of(fixtures.key(0), message)
    raw = urlsafe_b64decode(signature + "==")
    alike = [c for c in ALPHABET if urlsafe_b64decode(signature[:-1] + c + "==") == raw]
    assert len(alike) == 16
    for last in ALPHABET:
        if last == signature[-1]:
            check_signature(fixtures.peer(0), message, signature[:-1] + last)
        else:
            with rejected(Rejection.BAD_SIGNATURE):
                check_signature(fixtures.peer(0), message, signature[:-1] + last)


def test_every_changed_character_is_rejected() -> None:
    signature = signature_of(fixtures.key(0), b"message")
    for at, character in enumerate(signature):
        replacement = ALPHABET[(ALPHABET.index(character) + 17) % 64]
        with rejected(Rejection.BAD_SIGNATURE):
            check_signature(
                fixtures.peer(0), b"message", signature[:at] + replacement + signature[at + 1 :]
            )


@pytest.mark.parametrize(
    "change",
    [
        lambda s: "",
        lambda s: s + "==",
        lambda s: s + "=",
        lambda s: s + "A",
        lambda s: s + "AA",
        lambda s: s[:-1],
        lambda s: s[:-2],
        lambda s: s[:-4],
        lambda s: s + "\n",
        lambda s: " " + s,
        lambda s: s[:40] + "!" + s[40:],
        lambda s: s[:40] + "é" + s[41:],
        lambda s: "A" * 86,
        lambda s: s.replace("-", "+").replace("_", "/") + "!" * (not set(s) & set("-_")),
    ],
)
def test_other_base64_spellings_are_rejected(change: object) -> None:
    assert callable(change)
    signature = signature_of(fixtures.key(0), b"message")
    with rejected(Rejection.BAD_SIGNATURE):
        check_signature(fixtures.peer(0), b"message", change(signature))


def test_signature_plus_group_order_is_rejected() -> None:
    """RFC 8032 section 5.1.7: S must be below the order, or a body has two valid signatures."""
    raw = urlsafe_b64decode(signature_of(fixtures.key(0), b"message") + "==")
    s = int.from_bytes(raw[32:], "little") + ORDER
    with rejected(Rejection.BAD_SIGNATURE):
        check_signature(fixtures.peer(0), b"message", spelled(raw[:32] + s.to_bytes(32, "little")))


def test_invalid_signer_is_malformed() -> None:
    with rejected(Rejection.MALFORMED):
        check_signature("12D3KooW" + "z" * 44, b"", signature_of(fixtures.key(0), b""))


# Envelopes

BODY: dict[str, Any] = {"type": "abstain", "network": "0" * 16, "z": [1, {"é": True}]}


def test_signature_covers_domain_and_canonical_body() -> None:
    envelope = sign(BODY, fixtures.key(0))
    signed = (
        b'helium/2/envelope\x00{"network":"0000000000000000","type":"abstain",'
        b'"z":[1,{"\xc3\xa9":true}]}'
    )
    raw = urlsafe_b64decode(envelope.signature + "==")
    fixtures.key(0).public_key().verify(raw, signed)
    assert envelope.signer == fixtures.peer(0)
    envelope.verify()


def test_envelope_has_body_signer_and_signature() -> None:
    envelope = sign({"a": 1}, fixtures.key(0))
    assert envelope.document() == {
        "body": {"a": 1},
        "signer": fixtures.peer(0),
        "signature": envelope.signature,
    }
    assert (
        envelope.encode()
        == (
            f'{{"body":{{"a":1}},"signature":"{envelope.signature}","signer":"{fixtures.peer(0)}"}}'
        ).encode()
    )


@pytest.mark.parametrize("body", [{**BODY, "type": "task"}, {**BODY, "z": [1, {"é": 1}]}, {}])
def test_changed_body_fails_verification(body: dict[str, Any]) -> None:
    envelope = sign(BODY, fixtures.key(0))
    with rejected(Rejection.BAD_SIGNATURE, fixtures.peer(0)):
        Envelope(body, envelope.signer, envelope.signature).verify()


def test_changed_signer_fails_verification() -> None:
    envelope = sign(BODY, fixtures.key(0))
    with rejected(Rejection.BAD_SIGNATURE, fixtures.peer(1)):
        Envelope(BODY, fixtures.peer(1), envelope.signature).verify()


def test_member_order_does_not_change_the_envelope() -> None:
    shuffled = dict(reversed(BODY.items()))
    assert sign(shuffled, fixtures.key(0)) == sign(BODY, fixtures.key(0))


def test_known_bytes_give_the_same_envelope() -> None:
    made = sign({"type": "b", "a": [1.5, "é"]}, fixtures.key(0))
    known = Envelope(made.body, made.signer, made.signature, made.encode())
    assert known == made
    assert known.encode() == canonical(made.document())
    assert known.body_bytes == canonical(made.body)
    assert known.id == made.id
    known.verify()
