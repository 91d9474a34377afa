"""Vectors of canonical JSON, hashes, and peers."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import base58

from protocol.errors import Rejection
from protocol.wire import encoding as canon
from protocol.wire.encoding import Json, canonical, document_hash, parse, tagged_hash
from protocol.wire.signing import check_signature, peer_of, public_key_of, signature_of
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors, refused

LIMIT = 65_536

ACCEPTED = {
    "members are sorted": b'{"b":1,"a":{"d":[],"c":{}}}',
    "white space is nothing": b' \t\r\n{ "a" : [ 1 , 2 ] } ',
    "sorted by UTF-16 code units": (
        '{"\u20ac":0,"\\r":0,"\ufb33":0,"1":0,"\U0001f600":0,"\u0080":0,"\u00f6":0}'.encode()
    ),
    "escapes": rb'"\"\\\/\b\f\n\r\t\u0000\u001f\u007f\u00e9\u20AC"',
    "a pair of surrogates": rb'"\ud83d\ude00"',
    "neighbours of noncharacters": '"\ufdcf\ufdf0\ufffd\U0001fffd\U0010fffd"'.encode(),
    "one, however it is spelled": b"[1,1.0,1e0,10E-1,0.1e+1]",
    "there is one zero": b"[0,-0,0.0,-0.0,0e9,1e-400]",
    "the greatest integers": b"[9007199254740991,-9007199254740991,9007199254740991.0]",
    "fractions": b"[0.5,1e-6,1e-7,5e-324,333333333.33333329,4.50,123456789012345.6,-0.001]",
    "the nearest binary64": b"[9007199254740991.4,0.1000000000000000055511151231257827]",
    "numbers of 64 characters": b"[" + b"0." + b"0" * 61 + b"1,-" + b"1." + b"0" * 61 + b"]",
    "literals": b"[true,false,null]",
    "sixteen levels": b"[" * 16 + b"]" * 16,
    "brackets in strings are no levels": b'["' + b"[{" * 20 + b'"]',
}

REFUSED = {
    "empty": (b"", Rejection.MALFORMED),
    "cut off": (b'{"a":[1,2', Rejection.MALFORMED),
    "trailing bytes": (b"{}x", Rejection.MALFORMED),
    "two values": (b"1 2", Rejection.MALFORMED),
    "a byte order mark": (b"\xef\xbb\xbf{}", Rejection.MALFORMED),
    "not UTF-8": (b'"\xff"', Rejection.MALFORMED),
    "overlong UTF-8": (b'"\xc0\xaf"', Rejection.MALFORMED),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', Rejection.MALFORMED),
    "a lone surrogate": (rb'"\ud800"', Rejection.MALFORMED),
    "surrogates in the wrong order": (rb'{"\ude00\ud83d":1}', Rejection.MALFORMED),
    "a noncharacter": (rb'["\uffff"]', Rejection.MALFORMED),
    "a noncharacter of a higher plane": (rb'["\ud83f\udffe"]', Rejection.MALFORMED),
    "a control character": (b'"\x1f"', Rejection.MALFORMED),
    "duplicate members": (b'{"a":1,"b":2,"a":1}', Rejection.MALFORMED),
    "duplicate members, spelled differently": (rb'{"a":1,"\u0061":1}', Rejection.MALFORMED),
    "NaN": (b"[NaN]", Rejection.MALFORMED),
    "infinity": (b"[-Infinity]", Rejection.MALFORMED),
    "an integer too great": (b"9007199254740992", Rejection.MALFORMED),
    "a number too great": (b"1e16", Rejection.MALFORMED),
    "a number that is rounded to 2^53": (b"9007199254740991.5", Rejection.MALFORMED),
    "a number of 65 characters": (b"0." + b"0" * 62 + b"1", Rejection.MALFORMED),
    "an integer of 65 characters": (b"-" + b"0" * 63 + b"1", Rejection.MALFORMED),
    "a number beyond binary64": (b"-1e400", Rejection.MALFORMED),
    "a leading zero": (b"01", Rejection.MALFORMED),
    "a leading plus": (b"+1", Rejection.MALFORMED),
    "a trailing comma": (b"[1,]", Rejection.MALFORMED),
    "single quotes": (b"{'a':1}", Rejection.MALFORMED),
    "seventeen levels": (b"[" * 17 + b"]" * 17, Rejection.TOO_DEEP),
    "seventeen levels of objects": (b'{"a":' * 17 + b"1" + b"}" * 17, Rejection.TOO_DEEP),
    "too deep comes before malformed": (b"[" * 17, Rejection.TOO_DEEP),
}


def canonical_json() -> Vectors:
    """Texts, their canonical bytes, and texts that are refused."""
    return {
        "description": "Section 2.1. Parse `text` (or the bytes `hex`), with a limit of 65,536"
        " bytes. Each of `accepted` must give exactly the bytes of `canonical` (as UTF-8), and"
        " parsing those must give them again. Each of `refused` must be refused for `reason`.",
        "accepted": [
            {
                "name": name,
                "text": text.decode(),
                "canonical": canonical(parse(text, LIMIT)).decode(),
            }
            for name, text in ACCEPTED.items()
        ],
        "refused": [
            refused(name, reason, text, lambda payload: parse(payload, LIMIT))
            for name, (text, reason) in REFUSED.items()
        ],
    }


def hashes() -> Vectors:
    """Tagged hashes of bytes and of documents."""
    tags = (
        *("network", "task", "outcome", "commitment", "committee", "weights"),
        *("sequence", "speaker", "tokens", "envelope", "work"),
    )
    documents: list[Json] = [
        {},
        {"b": 1, "a": "é"},
        {"error": "no-notes"},
        {"config.json": "ab" * 32, "model.safetensors": "cd" * 32},
    ]
    return {
        "description": "H(tag, bytes) of section 2.2. `bytes`: SHA-256 of the hex `preimage`, which"
        " is ASCII 'helium/2/' and the tag, a zero byte, and `payload` (hex). `documents`: the"
        " payload is the canonical form of `document`.",
        "bytes": [
            {
                "tag": tag,
                "payload": payload.hex(),
                "preimage": (canon.domain(tag) + payload).hex(),
                "hash": tagged_hash(tag, payload).hex(),
            }
            for tag in tags
            for payload in (b"", b"helium\x00\xff")
        ],
        "documents": [
            {"tag": tag, "document": document, "hash": document_hash(tag, document)}
            for tag in ("task", "outcome", "weights")
            for document in documents
        ],
    }


def identities() -> Vectors:
    """Peers, signatures, and what is neither."""
    return {
        "description": "`peers`: the Ed25519 secret key `secret` (hex, 32 bytes, RFC 8032) has the"
        " public key `public` and the peer id `peer`; `signature` is its signature over the bytes"
        " `message` (hex), in base64url without padding. `refused_peers` are no peer ids of section"
        " 2.3. `refused_signatures` are no signatures of `peer` over `message`.",
        "peers": [_identity(index) for index in range(6)],
        "refused_peers": [
            refused(name, Rejection.MALFORMED, text.encode(), lambda t: public_key_of(t.decode()))
            for name, text in _no_peers().items()
        ],
        "refused_signatures": [
            {"peer": fixtures.peer(0), "message": b"helium".hex()}
            | refused(name, Rejection.BAD_SIGNATURE, text.encode(), _check)
            for name, text in _no_signatures().items()
        ],
    }


def _identity(index: int) -> Entry:
    key, message = fixtures.key(index), b"helium"[:index]
    return {
        "secret": key.private_bytes_raw().hex(),
        "public": key.public_key().public_bytes_raw().hex(),
        "peer": peer_of(key),
        "message": message.hex(),
        "signature": signature_of(key, message),
    }


def _no_peers() -> dict[str, str]:
    peer = fixtures.peer(0)
    raw = base58.b58decode(peer)

    def encoded(changed: bytes) -> str:
        return str(base58.b58encode(changed), "ascii")

    return {
        "empty": "",
        "a character that base58 does not have": peer[:-1] + "0",
        "a character too few": peer[:-1],
        "a character too many": peer + "1",
        "a SHA-256 multihash": encoded(b"\x12\x20" + raw[6:]),
        "a secp256k1 key": encoded(raw[:3] + b"\x02" + raw[4:]),
        "a key of 31 bytes": encoded(raw[:-1]),
        "a key of 33 bytes": encoded(raw + b"\x00"),
        "a one before": "1" + peer,
        "a line feed at the end": peer + "\n",
        "a space before": " " + peer,
    }


def _check(text: bytes) -> None:
    check_signature(fixtures.peer(0), b"helium", text.decode())


def _no_signatures() -> dict[str, str]:
    signature = signature_of(fixtures.key(0), b"helium")
    raw = urlsafe_b64decode(signature + "==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings = [c for c in alphabet if urlsafe_b64decode(signature[:-1] + c + "==") == raw]
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(raw[32:], "little") + order
    beyond = urlsafe_b64encode(raw[:32] + s.to_bytes(32, "little")).rstrip(b"=").decode()
    return {
        "padded": signature + "==",
        "another signer's": signature_of(fixtures.key(1), b"helium"),
        "over another message": signature_of(fixtures.key(0), b"heliun"),
        "S plus the group order": beyond,
        "cut off": signature[:-1],
    } | {
        f"unused bits set: spelling {n} of the last character": signature[:-1] + last
        for n, last in enumerate(c for c in spellings if c != signature[-1])
    }
