"""Vectors of keys and signatures at every edge; the verdicts are those of `edwards`."""

import functools
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator

import base58

from protocol.errors import Rejected, Rejection
from protocol.wire.signing import check_signature, public_key_of
from tests.vectors import edwards
from tests.vectors.edwards import BASE, IDENTITY, L, P, encode, times
from tests.vectors.entries import Entry, Vectors

PREFIX = bytes.fromhex("002408011220")
MESSAGE = b"helium"
SMALL = edwards.small_points()
SIGN = 1 << 255
# Fits the pattern of a peer id, and is none.
NO_PEER = "12D3KooW" + "z" * 44


def _scalar(label: str) -> int:
    return int.from_bytes(hashlib.sha512(label.encode()).digest(), "little") % L


SECRET, NONCE = _scalar("secret"), _scalar("nonce")
POINT = times(SECRET, BASE)
KEY = encode(POINT)


def signatures() -> Vectors:
    """Keys, and signatures of valid and invalid keys."""
    return {
        "description": "Sections 2.3 and 2.5. `keys`: `public` (hex) is the 32 bytes in the peer id"
        " `peer`; `reason` is null if it is a valid key, else the reason for which `peer`, read by"
        " itself as a peer id, is rejected. `signatures`: the reason for which `signature` (a text)"
        " of `peer` over the bytes `message` (hex) is rejected, null if it is valid; the key is"
        " checked first.",
        "keys": key_entries(),
        "signatures": [
            *(_signature(name, *case) for name, *case in _signatures()),
            *_spelled(),
        ],
    }


@functools.cache
def key_entries() -> list[Entry]:
    """Return the entries of keys, valid and not."""
    return [_key(name, raw) for name, raw in _keys()]


def _number(raw: int) -> bytes:
    return raw.to_bytes(32, "little")


def _order(point: edwards.Point) -> int:
    return next(n for n in (1, 2, 4, 8) if times(n, point) == IDENTITY)


def small_encodings() -> Iterator[tuple[str, bytes]]:
    """Yield all 32 bytes that a careless decoder takes for a point of small order, named."""
    for index, point in enumerate(SMALL):
        name, sign = f"order {_order(point)}, point {index}", (point[0] & 1) << 255
        yield name, encode(point)
        if point[0] == 0:
            yield f"{name}, x = 0 with the sign bit", _number(point[1] | SIGN)
        if point[1] + P < SIGN:
            yield f"{name}, y not reduced", _number(point[1] + P | sign)
            if point[0] == 0:
                raw = _number(point[1] + P | SIGN)
                yield f"{name}, y not reduced, x = 0 with the sign bit", raw


def _keys() -> Iterator[tuple[str, bytes]]:
    yield "a key", KEY
    yield "its negative", encode(edwards.negative(POINT))
    yield "the base point", encode(BASE)
    yield "the negative of the base point", encode(edwards.negative(BASE))
    yield "the least y of a key", next(filter(edwards.is_key, map(_number, range(P))))
    yield "the greatest y of a key", next(filter(edwards.is_key, map(_number, range(P, 0, -1))))
    yield from small_encodings()
    for index, point in enumerate(SMALL[1:], 1):
        mixed = edwards.add(POINT, point)
        yield f"mixed order {_order(point)} L, with point {index}", encode(mixed)
    for y in range(2, 19):
        if edwards.abscissa(y, 0) is not None:
            name = f"y = {y} + p"
            yield name, _number(y + P)
            yield f"{name} with the sign bit", _number(y + P | SIGN)
    off = [y for y in range(2, 40) if edwards.abscissa(y, 0) is None]
    yield f"y = {off[0]} is not on the curve", _number(off[0])
    yield f"y = {off[1]} with the sign bit is not on the curve", _number(off[1] | SIGN)
    above = next(y for y in range(2, 19) if edwards.abscissa(y, 0) is None)
    yield f"y = {above} + p, neither reduced nor on the curve", _number(above + P)
    yield "y = p - 2", _number(P - 2)
    yield "all bits set", b"\xff" * 32


def _signatures() -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """Yield the name, the public key, the message and 64 bytes."""
    r = encode(times(NONCE, BASE))
    good = edwards.sign(SECRET, KEY, MESSAGE, r, NONCE)
    s = int.from_bytes(good[32:], "little")
    yield "a signature", KEY, MESSAGE, good
    yield (
        "RFC 8032, test 1",
        *_rfc8032(
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e397"
            "01cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
    )
    yield (
        "RFC 8032, test 2",
        *_rfc8032(
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f361"
            "3d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    )
    base = encode(BASE)
    yield "the base point as key", base, MESSAGE, edwards.sign(1, base, MESSAGE, r, NONCE)
    yield "the base point as R", KEY, MESSAGE, edwards.sign(SECRET, KEY, MESSAGE, base, 1)
    yield "another message", KEY, b"heliun", good
    yield "another key", base, MESSAGE, good
    yield "one bit of R changed", KEY, MESSAGE, bytes([good[0] ^ 1]) + good[1:]
    yield "the sign bit of R changed", KEY, MESSAGE, good[:31] + bytes([good[31] ^ 128]) + good[32:]
    yield "S + 1", KEY, MESSAGE, good[:32] + _number(s + 1)
    yield "S = 0", KEY, MESSAGE, good[:32] + bytes(32)
    yield "S = L - 1", KEY, MESSAGE, good[:32] + _number(L - 1)
    yield "S = L", KEY, MESSAGE, good[:32] + _number(L)
    for n in (1, 2, 8, (2**256 - 1 - s) // L):
        yield f"S + {n} L", KEY, MESSAGE, good[:32] + _number(s + n * L)
    yield "only zeros", KEY, MESSAGE, bytes(64)
    yield "only ones", KEY, MESSAGE, b"\xff" * 64
    # With R of small order and S = k a, the cofactored equation holds whatever R is.
    for name, raw in small_encodings():
        yield f"R of {name}", KEY, MESSAGE, edwards.sign(SECRET, KEY, MESSAGE, raw, 0)
    for index, point in enumerate(SMALL[1:], 1):
        raw = encode(edwards.add(times(NONCE, BASE), point))
        mixed = edwards.sign(SECRET, KEY, MESSAGE, raw, NONCE)
        yield f"R with a component of order {_order(point)}, point {index}", KEY, MESSAGE, mixed
    off = next(y for y in range(2, 40) if edwards.abscissa(y, 0) is None)
    yield "R is not a point", KEY, MESSAGE, edwards.sign(SECRET, KEY, MESSAGE, _number(off), 0)
    yield "R is all ones", KEY, MESSAGE, edwards.sign(SECRET, KEY, MESSAGE, b"\xff" * 32, 0)
    # The cofactorless equation holds for these keys too: the message is chosen so that it does.
    for index, point in enumerate(SMALL):
        key = encode(point)
        message = _message(r, key)
        name = f"the key has order {_order(point)}, point {index}"
        yield name, key, message, edwards.sign(0, key, message, r, NONCE)
        if index:
            key = encode(edwards.add(POINT, point))
            message = _message(r, key)
            name = f"the key has order {_order(point)} L, with point {index}"
            yield name, key, message, edwards.sign(SECRET, key, message, r, NONCE)
    not_reduced = _number(1 + P)
    yield "the key is the identity, y not reduced", not_reduced, MESSAGE, r + _number(NONCE)


def _rfc8032(public: str, message: str, signature: str) -> tuple[bytes, bytes, bytes]:
    return bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)


def _message(r: bytes, key: bytes) -> bytes:
    """Return a message whose k is a multiple of 8, so that [k] removes what is of small order."""
    messages = (b"helium %d" % n for n in range(1000))
    return next(m for m in messages if edwards.challenge(r, key, m) % 8 == 0)


def text_of(signature: bytes) -> str:
    return urlsafe_b64encode(signature).rstrip(b"=").decode()


def _spelled_well() -> tuple[bytes, str]:
    """Return a message, and the text of its signature; it has both characters that base64 lacks."""
    r = encode(times(NONCE, BASE))
    for message in (b"helium %d" % n for n in range(1000)):
        text = text_of(edwards.sign(SECRET, KEY, message, r, NONCE))
        if "-" in text and "_" in text:
            return message, text
    raise AssertionError("none of them has both")


def _spellings(text: str) -> Iterator[tuple[str, str]]:
    """Yield other texts for the 64 bytes of a signature, and texts of other lengths."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(text[-1])
    for bits in range(1, 16):
        yield f"unused bits {bits:04b}", text[:-1] + alphabet[last | bits]
    yield "padded", text + "=="
    yield "the alphabet of base64", text.replace("-", "+").replace("_", "/")
    yield "a character too few", text[:-1]
    yield "a character too many", text + "A"
    yield "a line feed at the end", text + "\n"
    yield "a space before", " " + text
    yield "a line feed within", text[:40] + "\n" + text[40:]
    yield "hexadecimal", urlsafe_b64decode(text + "==").hex()
    yield "empty", ""


def _peer(raw: bytes) -> str:
    return str(base58.b58encode(PREFIX + raw), "ascii")


def _key(name: str, raw: bytes) -> Entry:
    reason = None if edwards.is_key(raw) else str(Rejection.MALFORMED)
    return {"name": name, "peer": _peer(raw), "public": raw.hex(), "reason": reason}


def _signature(name: str, public: bytes, message: bytes, signature: bytes) -> Entry:
    reason = None
    if not edwards.is_key(public):
        reason = str(Rejection.MALFORMED)
    elif not edwards.is_signature(public, message, signature):
        reason = str(Rejection.BAD_SIGNATURE)
    return {
        "name": name,
        "peer": _peer(public),
        "message": message.hex(),
        "signature": text_of(signature),
        "reason": reason,
    }


def _spelled() -> list[Entry]:
    message, text = _spelled_well()
    whole = _signature("a signature with '-' and '_'", KEY, message, urlsafe_b64decode(text + "=="))
    other = {"reason": str(Rejection.BAD_SIGNATURE)}
    return [
        whole,
        *({**whole, "name": n, "signature": t} | other for n, t in _spellings(text)),
    ]


def verdict_on_key(peer: str) -> str | None:
    """Return the product's reason to reject a peer id."""
    try:
        public_key_of(peer)
    except Rejected as rejected:
        return str(rejected.reason)
    return None


def verdict_on_signature(peer: str, message: bytes, signature: str) -> str | None:
    """Return the product's reason to reject a signature."""
    try:
        check_signature(peer, message, signature)
    except Rejected as rejected:
        return str(rejected.reason)
    return None
