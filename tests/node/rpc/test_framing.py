import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rpc.framing import (
    LENGTH_BYTES,
    FrameTooLarge,
    MalformedFrame,
    encode_length,
    read_frame,
    write_frame,
)
from node.transport.interface import StreamClosed
from tests.support.memory_transport.pipes import MemoryConnection

T = TypeVar("T")


class Tape:
    """A stream that plays back `content` and records what is written."""

    rate_limit_key = peer = "12D3KooWTape"
    connection = MemoryConnection()

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.position = 0

    async def read_exactly(self, n: int) -> bytes:
        piece = self.content[self.position : self.position + n]
        self.position += len(piece)
        if len(piece) < n:
            raise StreamClosed("the tape ended")
        return piece

    async def write(self, payload: bytes) -> None:
        self.content += payload

    async def close_write(self) -> None: ...

    async def close(self) -> None: ...

    async def reset(self) -> None: ...

    async def wait_closed(self) -> None: ...


def run(coroutine: Coroutine[None, None, T]) -> T:
    return asyncio.run(coroutine)


def frame(payload: bytes) -> bytes:
    tape = Tape()
    run(write_frame(tape, payload))
    return tape.content


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_are_read_in_the_order_written(payloads: list[bytes]) -> None:
    tape = Tape(b"".join(frame(payload) for payload in payloads))
    assert [run(read_frame(tape, 300)) for _ in payloads] == payloads
    assert tape.position == len(tape.content)


@given(st.binary(max_size=300))
def test_every_truncated_frame_raises_stream_closed(payload: bytes) -> None:
    whole = frame(payload)
    for length in range(len(whole)):
        with pytest.raises(StreamClosed):
            run(read_frame(Tape(whole[:length]), 300))


@given(st.integers(0, 2**35 - 1))
def test_a_length_is_encoded_in_its_shortest_form(size: int) -> None:
    encoded = encode_length(size)
    assert len(encoded) == max(1, -(-size.bit_length() // 7))
    assert sum((byte & 0x7F) << 7 * n for n, byte in enumerate(encoded)) == size
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]


def test_the_encoding_of_known_frames() -> None:
    assert frame(b"") == b"\x00"
    assert frame(b"x" * 300)[:2] == b"\xac\x02"


@given(st.integers(0, 300), st.integers(0, 600))
def test_the_limit_is_checked_before_a_payload_byte_is_read(limit: int, size: int) -> None:
    tape = Tape(encode_length(size) + b"x" * size)
    if size <= limit:
        assert run(read_frame(tape, limit)) == b"x" * size
    else:
        with pytest.raises(FrameTooLarge, match=f"{size} bytes is over the limit of {limit}"):
            run(read_frame(tape, limit))
        assert tape.position == len(encode_length(size))


@pytest.mark.parametrize("length", [b"\x80\x00", b"\x81\x00", b"\xff\x80\x00", b"\x80" * 4 + b"\0"])
def test_a_padded_length_is_refused(length: bytes) -> None:
    with pytest.raises(MalformedFrame, match="shortest form"):
        run(read_frame(Tape(length + b"x" * 300), 300))


@given(st.binary(max_size=20))
def test_at_most_five_bytes_of_length_are_read(tail: bytes) -> None:
    tape = Tape(b"\x80" * LENGTH_BYTES + tail)
    with pytest.raises(MalformedFrame, match="over five bytes"):
        run(read_frame(tape, 2**40))
    assert tape.position == LENGTH_BYTES


@pytest.mark.parametrize("size", [2**35, 2**63])
def test_a_length_over_five_bytes_is_not_written(size: int) -> None:
    with pytest.raises(ValueError, match="five bytes"):
        encode_length(size)
