"""Small inputs that could cost much memory or time. Their cost is proportional to their size."""

import contextlib
import json
import time
import tracemalloc

import pytest

from protocol.constants import DOCUMENT_LIMIT, ENVELOPE_LIMIT, MAX_DEPTH
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import parse
from tests.property.envelopes import NET
from tests.property.parsers import verdict_of
from tests.property.test_parsers import PARSERS

SIZE = ENVELOPE_LIMIT
# Processor time for one bomb.
MAX_SECONDS = 1.0
# Memory per byte of input. A list of empty lists costs 64 bytes per byte in Python.
MAX_BYTES_PER_BYTE = 120

BOMBS = {
    "arrays": b"[" * SIZE,
    "objects": b'{"a":' * (SIZE // 5),
    "closing": b"]" * SIZE,
    "arrays in a string": b'"' + b"[" * (SIZE - 2) + b'"',
    "unterminated": b'"' + b"\\" * (SIZE - 1),
    "escaped quotes": b'["' + b'\\"' * (SIZE // 2 - 2),
    "quotes": b'"' * SIZE,
    "digits": b"9" * SIZE,
    "fraction": b"0." + b"1" * (SIZE - 2),
    "exponent": b"1e" + b"9" * (SIZE - 2),
    "numbers": b"[" + b"1e308," * (SIZE // 6 - 1) + b"1]",
    "empty arrays": b"[" + b"[]," * (SIZE // 3 - 2) + b"[]]",
    "same name": b"{" + b'"a":1,' * (SIZE // 6 - 2) + b'"a":1}',
    "names": b"{" + b",".join(b'"%d":1' % n for n in range(SIZE // 12)) + b"}",
    "surrogates": b'["' + b"\\ud800" * (SIZE // 6 - 2) + b'"]',
    "noncharacters": b'["' + b"\\uffff" * (SIZE // 6 - 2) + b'"]',
    "astral": b'["' + "\U0001f3b5".encode() * (SIZE // 4 - 2) + b'"]',
    "spaces": b" " * SIZE,
    "byte order marks": b"\xef\xbb\xbf" * (SIZE // 3),
    "signature": b'{"body":{"type":"commit"},"signer":"'
    + b"1" * (SIZE - 100)
    + b'","signature":""}',
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("limit", [ENVELOPE_LIMIT, DOCUMENT_LIMIT])
def test_cost_of_a_bomb_is_proportional_to_its_size(name: str, limit: int) -> None:
    bomb = BOMBS[name]
    assert len(bomb) <= limit
    tracemalloc.start()
    start = time.process_time()
    with contextlib.suppress(Rejected):
        parse(bomb, limit)
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < MAX_SECONDS
    assert peak < MAX_BYTES_PER_BYTE * len(bomb)


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_rejected_as_message_and_as_network(name: str) -> None:
    with pytest.raises(Rejected):
        codec.decode(BOMBS[name], NET.id)
    with pytest.raises(Rejected):
        Network.parse(BOMBS[name])


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 100_000])
def test_nesting_is_limited_before_parsing(levels: int) -> None:
    text = b"[" * levels + b"]" * levels
    if levels <= MAX_DEPTH:
        assert parse(text, DOCUMENT_LIMIT) is not None
        return
    with pytest.raises(Rejected, match="too-deep"):
        parse(text, DOCUMENT_LIMIT)


DIGITS = b",".join([b"9" * 4000] * 500)
HEADER = b'{"a":{"dtype":"F32","shape":[' + DIGITS + b'],"data_offsets":[0,24]}}'
CODEC = {"sampling_rate": 32_000, "upsampling_ratios": [2**31 - 1] * 100_000}
MUSICGEN = json.dumps({"model_type": "musicgen", "audio_encoder": CODEC}).encode()
FILES = [
    ("weights", len(HEADER).to_bytes(8, "little") + HEADER, "ModelRefused"),
    ("model", b"\0\0" + MUSICGEN, "accepted"),
    ("model", b"\0\0" + b"[" * 100_000, "ModelRefused"),
    ("weights", (100_000).to_bytes(8, "little") + b"[" * 100_000, "ModelRefused"),
    ("settings", b"peers = " + b"[" * 20_000, "InvalidSetting"),
    ("settings", b"log_level = " + b"{a=" * 20_000, "InvalidSetting"),
    ("settings", b"requester_tasks = " + b"9" * 20_000, "InvalidSetting"),
    ("key", b"-" * 20_000, "UnusableKeyFile"),
    ("audio", b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\x00\x00\x00\x00" * 10_000, "TaskFailed"),
    ("audio", b"fLaC" + b"\x01\x00\x00\x00" * 10_000, "TaskFailed"),
]


@pytest.mark.parametrize(("name", "bomb", "verdict"), FILES)
def test_bomb_file_gets_its_verdict(name: str, bomb: bytes, verdict: str) -> None:
    (parser,) = [parser for parser in PARSERS if parser.name == name]
    assert verdict_of(parser, bomb) == verdict
