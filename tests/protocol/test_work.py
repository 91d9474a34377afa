import contextlib
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import work
from protocol.errors import Rejected, Rejection
from protocol.work import Sequence, kept_steps, parse_tokens, tokens_blob, work_digest
from tests.protocol.rejections import PROPERTY, rejected


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        (0, ()),
        (1, (0,)),
        (2, (1,)),
        (63, (62,)),
        (64, (63,)),
        (65, (63, 64)),
        (127, (63, 126)),
        (128, (63, 127)),
        (129, (63, 127, 128)),
        (1503, (*range(63, 1503, 64), 1502)),
    ],
)
def test_each_64th_step_and_the_last_are_kept(steps: int, kept: tuple[int, ...]) -> None:
    assert kept_steps(steps) == kept


def test_digest_is_over_steps_tokens_and_logits_of_each_sequence() -> None:
    first = Sequence(2, struct.pack("<4i", 1, -2, 3, 4), struct.pack("<2f", 0.5, -0.5))
    second = Sequence(1, struct.pack("<i", 2**31 - 1), b"")
    expected = hashlib.sha256(
        b"helium/2/work\0"
        + bytes.fromhex("02000000 01000000 feffffff 03000000 04000000 0000003f 000000bf")
        + bytes.fromhex("01000000 ffffff7f")
    ).hexdigest()
    assert work_digest([first, second]) == expected
    assert work_digest(iter([first, second])) == expected
    assert work_digest([second, first]) != expected


def test_digest_of_no_sequences_is_that_of_no_bytes() -> None:
    assert work_digest([]) == hashlib.sha256(b"helium/2/work\0").hexdigest()


def test_blob_is_steps_and_tokens() -> None:
    assert tokens_blob(3, b"\1\0\0\0" * 3).hex() == "03000000" + "01000000" * 3


@pytest.mark.parametrize(("steps", "columns"), [(1, 1), (1, 16), (64, 4), (65_536, 8)])
def test_blob_is_parsed(steps: int, columns: int) -> None:
    tokens = bytes(range(256)) * (steps * columns // 64 + 1)
    tokens = tokens[: 4 * steps * columns]
    assert parse_tokens(tokens_blob(steps, tokens)) == (steps, columns, tokens)


def test_blob_of_no_steps_is_4_bytes() -> None:
    assert parse_tokens(bytes(4)) == (0, 0, b"")


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        bytes(3),
        bytes(8),
        struct.pack("<I", 1),
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 1) + bytes(3),
        struct.pack("<I", 1) + bytes(5),
        struct.pack("<I", 2) + bytes(4),
        struct.pack("<I", 2) + bytes(12),
        struct.pack(">I", 2) + bytes(8),
        struct.pack("<I", 1) + bytes(work.MAX_TOKENS_BYTES),
    ],
    ids=len,
)
def test_malformed_blob_is_rejected(blob: bytes) -> None:
    with rejected(Rejection.INVALID_FIELD, "tokens: "):
        parse_tokens(blob)


def test_largest_blob_is_parsed() -> None:
    steps, columns, tokens = parse_tokens(tokens_blob(1, bytes(work.MAX_TOKENS_BYTES - 4)))
    assert (steps, columns) == (1, work.MAX_TOKENS_BYTES // 4 - 1)
    assert len(tokens) == work.MAX_TOKENS_BYTES - 4


@PROPERTY
@given(st.binary(max_size=80) | st.builds(tokens_blob, st.integers(0, 20), st.binary(max_size=80)))
def test_parsed_blob_is_that_of_its_parts(blob: bytes) -> None:
    """A blob that is not rejected has one reading, and its parts give it again."""
    with contextlib.suppress(Rejected):
        steps, columns, tokens = parse_tokens(blob)
        assert tokens_blob(steps, tokens) == blob
        assert len(tokens) == 4 * steps * columns
        assert bool(steps) is bool(columns)


@PROPERTY
@given(st.integers(1, 5000))
def test_kept_steps_are_distinct_and_end_with_the_last(steps: int) -> None:
    kept = kept_steps(steps)
    assert list(kept) == sorted(set(kept))
    assert kept[-1] == steps - 1
    assert len(kept) == -(-steps // work.KEPT_EVERY)
    assert all(step % 64 == 63 for step in kept[:-1])
