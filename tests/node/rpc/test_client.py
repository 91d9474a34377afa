"""Asking: what an answer may be, and what is made of every other one (specification 7.3)."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from node.rpc.client import ANSWER_SECONDS, RequestRefused, open_request, send_request
from node.rpc.codec import (
    REQUEST_LIMIT,
    REQUESTS,
    ProtocolViolation,
    Status,
    answer,
    protocol_id,
    read_document,
    refuse,
)
from node.rpc.framing import encode_length, write_frame
from node.transport.interface import Stream, StreamClosed
from protocol.constants import DOCUMENT_LIMIT, ENVELOPE_LIMIT
from protocol.errors import Rejection
from protocol.wire.encoding import Document, canonical
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

NETWORK = "0123456789abcdef" * 4
HELLO: Document = fixtures.hello_request(NETWORK)
GREETING: Document = fixtures.hello_answer(NETWORK)
SERVER, ASKER = fixtures.peer(0), fixtures.peer(1)
Serve = Callable[[str, Stream], Awaitable[None]]


@asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[MemoryTransport]:
    medium = MemoryNetwork(random.Random(1))
    server, asker = MemoryTransport(medium, SERVER), MemoryTransport(medium, ASKER)
    await server.start(Recorder(serve), (), [protocol_id(name) for name in REQUESTS])
    await asker.start(Recorder(), (), ())
    await asker.dial(server.addresses[0])
    try:
        yield asker
    finally:
        await asker.stop()
        await server.stop()


def answer_of(serve: Serve, name: str = "hello", request: Document = HELLO) -> Any:
    async def main() -> Any:
        async with connected(serve) as asker:
            return await send_request(asker, SERVER, name, request)

    return virtual_loop.run(main)


def saying(payload: bytes) -> Serve:
    async def serve(protocol: str, stream: Stream) -> None:
        await read_document(stream, "hello-request")
        await stream.write(payload)

    return serve


def framed(status: int, payload: bytes) -> bytes:
    return bytes((status,)) + encode_length(len(payload)) + payload


def test_the_protocols_are_those_of_the_specification() -> None:
    assert [protocol_id(name) for name in REQUESTS] == [
        f"/helium/2/{name}"
        for name in ("hello", "submit", "task", "watch", "blob", "feed", "envelopes")
    ]
    assert REQUEST_LIMIT > ENVELOPE_LIMIT


def test_an_answer_is_returned_as_sent() -> None:
    assert answer_of(saying(framed(0, canonical(GREETING)))) == GREETING


def test_a_request_is_sent_completely_and_half_closed() -> None:
    async def serve(protocol: str, stream: Stream) -> None:
        assert protocol == "/helium/2/hello"
        assert await read_document(stream, "hello-request") == HELLO
        with pytest.raises(StreamClosed):
            await stream.read_exactly(1)
        await answer(stream, GREETING)

    assert answer_of(serve) == GREETING


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("watch", {"task": "0" * 64}),
        ("blob", {"sha256": "0" * 64, "offset": 0}),
    ],
)
def test_a_request_with_a_long_answer_is_half_closed(name: str, request_: Document) -> None:
    ended: list[str] = []

    async def serve(protocol: str, stream: Stream) -> None:
        await read_document(stream, f"{name}-request")
        try:
            await stream.read_exactly(1)
        except StreamClosed as closed:
            ended.append(str(closed))
        await stream.write(b"\x00")

    async def main() -> None:
        async with (
            connected(serve) as asker,
            open_request(asker, SERVER, name, request_) as stream,
        ):
            await stream.read_exactly(1)

    virtual_loop.run(main)
    assert ended == ["the stream ended"]


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (encode_length(DOCUMENT_LIMIT + 1), Rejection.TOO_LARGE),
        (b"\x80\x00", Rejection.MALFORMED),
    ],
)
def test_an_answer_with_a_bad_length_has_its_reason(length: bytes, reason: Rejection) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        answer_of(saying(b"\x00" + length))
    assert (caught.value.reason, caught.value.attributable) == (reason, True)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_a_refusal_is_raised_with_its_reason_and_detail(status: Status) -> None:
    async def serve(protocol: str, stream: Stream) -> None:
        await refuse(stream, status, "over-limit", "args.seed: is too large")

    with pytest.raises(RequestRefused, match=r"over-limit: args.seed: is too large") as refused:
        answer_of(serve)
    assert refused.value.status is status
    assert refused.value.reason == "over-limit"


def test_a_refusal_may_have_no_detail() -> None:
    async def serve(protocol: str, stream: Stream) -> None:
        await refuse(stream, Status.BUSY, "busy", "")

    with pytest.raises(RequestRefused, match=r"\Abusy\Z"):
        answer_of(serve)


@pytest.mark.parametrize(
    "payload",
    [
        framed(0, b""),
        framed(0, b"{"),
        framed(0, b"\xff"),
        framed(0, b"[]"),
        framed(0, b"{}"),
        framed(0, canonical({**GREETING, "more": 1})),
        framed(0, canonical({**GREETING, "reasons": ["x"] * 65})),
        b"\x00" + encode_length(DOCUMENT_LIMIT + 1),
        b"\x00" + b"\xff" * 5,
        framed(1, b"{}"),
        framed(1, canonical(GREETING)),
        framed(1, canonical({"reason": "r", "detail": "d" * 257})),
        framed(5, canonical({"reason": "r", "detail": "d"})),
        framed(255, canonical({"reason": "r", "detail": "d"})),
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_an_answer_that_breaks_the_protocol_raises_protocol_violation(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        answer_of(saying(payload))


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", b"\x00\x85", framed(0, canonical(GREETING))[:-1]], ids=len
)
def test_a_truncated_answer_raises_stream_closed(payload: bytes) -> None:
    with pytest.raises(StreamClosed):
        answer_of(saying(payload))


@pytest.mark.parametrize("sent", [b"", b"\x00", b"\x00\x0a{"])
def test_a_request_to_a_stalled_peer_times_out(sent: bytes) -> None:
    async def serve(protocol: str, stream: Stream) -> None:
        await stream.write(sent)
        await asyncio.sleep(10_000)

    async def main() -> float:
        async with connected(serve) as asker:
            began = asyncio.get_running_loop().time()
            with pytest.raises(StreamClosed, match="no answer to hello within 30 s"):
                await send_request(asker, SERVER, "hello", HELLO)
            return asyncio.get_running_loop().time() - began

    assert virtual_loop.run(main) == pytest.approx(ANSWER_SECONDS, abs=0.1)


def test_a_request_to_an_absent_peer_raises_a_connection_error() -> None:
    async def main() -> None:
        async with connected(saying(b"")) as asker:
            with pytest.raises(ConnectionError):
                await send_request(asker, fixtures.peer(7), "hello", HELLO)

    virtual_loop.run(main)


def test_a_cancelled_request_resets_its_stream() -> None:
    seen: list[str] = []

    async def serve(protocol: str, stream: Stream) -> None:
        await read_document(stream, "hello-request")
        await stream.wait_closed()
        seen.append("reset")

    async def main() -> None:
        async with connected(serve) as asker:
            with suppress(KeyError):
                async with open_request(asker, SERVER, "hello", HELLO):
                    await asyncio.sleep(1)
                    raise KeyError
            await asyncio.sleep(1)

    virtual_loop.run(main)
    assert seen == ["reset"]


def test_an_answer_over_the_limit_is_never_sent() -> None:
    """That is a mistake of our own, not of the peer's."""
    seen: list[str] = []

    async def serve(protocol: str, stream: Stream) -> None:
        try:
            await answer(stream, {"reasons": ["x" * DOCUMENT_LIMIT]})
        except ValueError as error:
            seen.append(str(error))

    with pytest.raises(StreamClosed):
        answer_of(serve)
    assert seen == [f"an answer of {DOCUMENT_LIMIT + 16} bytes"]


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("x" * 300, "x" * 256),
        ("ä" * 256, "ä" * 256),
        ("x" + "ä" * 256, "x" + "ä" * 255),
        ("\U0001f3b5" * 257, "\U0001f3b5" * 256),
        ("one\ntwo\x00three\x7f", "one two three "),
    ],
)
def test_a_detail_is_truncated_and_made_printable(detail: str, expected: str) -> None:
    async def serve(protocol: str, stream: Stream) -> None:
        await refuse(stream, Status.INVALID, "malformed", detail)

    with pytest.raises(RequestRefused) as refused:
        answer_of(serve)
    assert refused.value.detail == expected


@pytest.mark.parametrize("size", [11, 12])
def test_a_document_may_be_as_long_as_the_limit(size: int) -> None:
    async def serve(protocol: str, stream: Stream) -> None:
        await write_frame(stream, b'{"task":1}'.ljust(size))

    async def main() -> None:
        async with connected(serve) as asker:
            stream = await asker.open(SERVER, protocol_id("task"))
            expected = "task" if size == 11 else "over the limit of 11"
            with pytest.raises(ProtocolViolation, match=expected):
                await read_document(stream, "task-request", 11)

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("sent", "offence"),
    [
        (b"\x00\xff\xff\xff\xff\x7f", True),
        (framed(0, b"{"), True),
        (framed(0, b"[" * 40), True),
        (framed(9, canonical({"reason": "x", "detail": ""})), False),
        (framed(0, canonical({**GREETING, "newer": 1})), False),
        (framed(4, canonical({"reason": "busy", "detail": ""})), False),
        (b"\x00\x05", False),
        (b"", False),
    ],
)
def test_only_an_attributable_violation_is_reported(sent: bytes, offence: bool) -> None:
    async def main() -> list[str]:
        async with connected(saying(sent)) as asker:
            reported: list[str] = []
            asker.report = lambda peer, action: reported.append(peer)  # type: ignore[method-assign]
            with pytest.raises((ProtocolViolation, RequestRefused, StreamClosed)):
                await send_request(asker, SERVER, "hello", HELLO)
            return reported

    assert virtual_loop.run(main) == [SERVER] * offence
