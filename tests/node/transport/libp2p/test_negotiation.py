"""Negotiations as bytes: what one side writes, and what it makes of the other's."""

import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from trio.testing import wait_all_tasks_blocked

from node.transport.libp2p import negotiation
from node.transport.libp2p.muxing.yamux import GuardedYamux
from node.transport.libp2p.negotiation import NegotiationFailed
from node.transport.libp2p.net_stream import GuardedNetStream
from tests.node.transport.libp2p.muxing.wire import Wire

HEADER = b"\x13/multistream/1.0.0\n"
HELLO, BLOB, NA = b"\x07/hello\n", b"\x06/blob\n", b"\x03na\n"
SPOKEN = ("/hello", "/blob")
DATA, WINDOW = 0, 1
SYN, ACK, RST = 1, 2, 8

Near = Callable[[GuardedNetStream], Awaitable[object]]


class Far:
    """The far end of one stream."""

    def __init__(self, wire: Wire, identity: int) -> None:
        self._wire, self._identity = wire, identity

    async def send(self, content: bytes, flags: int = 0) -> None:
        header = struct.pack("!BBHII", 0, DATA, flags, self._identity, len(content))
        self._wire.send(self._wire.seal(header + content))
        await wait_all_tasks_blocked()

    def received(self) -> list[bytes]:
        """Return the content of each write; a reset is `None`."""
        writes = []
        for written in self._wire.received():
            content, rest = b"", written
            while rest:
                _, kind, flags, _, size = struct.unpack("!BBHII", rest[:12])
                content += b"<reset>" if flags & RST else b""
                end = 12 + size if kind == DATA else 12
                content, rest = content + rest[12:end], rest[end:]
            writes.append(content)
        return writes


def run(test: Callable[[GuardedNetStream, Far], Awaitable[None]], *, inbound: bool = False) -> None:
    async def main() -> None:
        wire = Wire()
        muxer: GuardedYamux = wire.muxer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(muxer.start)
            await muxer.event_started.wait()
            await wait_all_tasks_blocked()
            wire.received()
            far = Far(wire, 2 if inbound else 1)
            if inbound:
                await far.send(b"", SYN)
                muxed = await muxer.accept_stream()
            else:
                muxed = await muxer.open_stream()
            await test(GuardedNetStream(muxed, None, None), far)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_the_header_and_the_protocol_are_sent_in_one_write() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        async def near() -> None:
            assert await negotiation.select(stream, SPOKEN) == "/hello"
            assert await stream.read() == b"greeting"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near)
            await wait_all_tasks_blocked()
            assert far.received() == [HEADER + HELLO]
            for byte in HEADER + HELLO:
                await far.send(bytes((byte,)))
            await far.send(b"greeting")

    run(test)


def test_the_next_protocol_is_asked_for() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        async def near() -> None:
            assert await negotiation.select(stream, SPOKEN) == "/blob"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near)
            await wait_all_tasks_blocked()
            await far.send(HEADER + NA)
            assert far.received() == [HEADER + HELLO, BLOB]
            await far.send(BLOB)

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        HEADER + NA + NA,
        b"\x13/multistream/2.0.0\n",
        HEADER + BLOB,
        HEADER + b"\x06/hello",
        HEADER + b"\x00",
        HEADER + b"\x81\x08" + bytes(1025),
        b"\x80\x80\x80\x80\x80\x80",
    ],
    ids=["none", "header", "another", "no newline", "empty", "too long", "length"],
)
def test_what_is_no_agreement_raises(answer: bytes) -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        async def near() -> None:
            with pytest.raises((NegotiationFailed, ValueError)):
                await negotiation.select(stream, SPOKEN)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near)
            await wait_all_tasks_blocked()
            await far.send(answer)

    run(test)


def test_an_assumed_protocol_is_sent_with_the_request_in_one_write() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        negotiation.assume(stream, "/hello")
        assert far.received() == []
        await stream.write(b"request")
        assert far.received() == [HEADER + HELLO + b"request"]
        await far.send(HEADER + HELLO[:3])
        await far.send(HELLO[3:] + b"answer")
        assert await stream.read(3) == b"ans"
        assert await stream.read(3) == b"wer"

    run(test)


@pytest.mark.parametrize("answer", [HEADER + NA, HEADER + BLOB, b"answer"])
def test_a_wrongly_assumed_protocol_raises_and_resets(answer: bytes) -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        negotiation.assume(stream, "/hello")
        await stream.write(b"request")
        far.received()
        await far.send(answer)
        with pytest.raises(StreamError):
            await stream.read()
        assert far.received() == [b"<reset>"]

    run(test)


def test_a_request_that_came_at_once_is_answered_with_the_protocol_in_one_write() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        await far.send(HEADER + HELLO + b"request")
        assert await negotiation.respond(stream, SPOKEN) == "/hello"
        assert await stream.read() == b"request"
        assert far.received() == []
        await stream.write(b"answer")
        assert far.received() == [HEADER + HELLO + b"answer"]

    run(test, inbound=True)


def test_a_reading_handler_sends_the_answer_for_which_the_peer_may_wait() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        await far.send(HEADER + HELLO + b"half of ")
        await negotiation.respond(stream, SPOKEN)
        assert await stream.read() == b"half of "
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.read)
            await wait_all_tasks_blocked()
            assert far.received() == [HEADER + HELLO]
            await far.send(b"the request")

    run(test, inbound=True)


@pytest.mark.parametrize("step", [HEADER, HEADER + b"\x09/unknown\n"])
def test_a_peer_that_waits_for_each_answer_gets_it(step: bytes) -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        async def near() -> None:
            assert await negotiation.respond(stream, SPOKEN) == "/blob"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near)
            await far.send(step)
            assert b"".join(far.received()) == (HEADER if step == HEADER else HEADER + NA)
            await far.send(BLOB)
        assert far.received() == [BLOB]

    run(test, inbound=True)


def test_the_protocols_are_listed() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        await far.send(HEADER + b"\x03ls\n" + HELLO)
        await negotiation.respond(stream, SPOKEN)
        assert far.received() == [HEADER + b"\x0e/hello\n/blob\n\n" + HELLO]

    run(test, inbound=True)


@pytest.mark.parametrize(
    "asked",
    [
        b"\x13/multistream/2.0.0\n",
        HEADER + b"\x02\xff\n",
        HEADER + b"\xff\xff\x7f",
        HEADER + b"\x00",
    ],
    ids=["header", "not UTF-8", "too long", "empty"],
)
def test_what_is_no_negotiation_raises(asked: bytes) -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        await far.send(asked)
        with pytest.raises((NegotiationFailed, ValueError)):
            await negotiation.respond(stream, SPOKEN)

    run(test, inbound=True)


def test_questions_without_end_raise_when_the_window_is_full() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        stream.muxed_stream.send_window = 100
        await far.send(HEADER + b"\x03no\n" * 1000)
        with pytest.raises(NegotiationFailed, match="window"):
            await negotiation.respond(stream, SPOKEN)

    run(test, inbound=True)


def test_a_message_is_read_whole_and_nothing_behind_it() -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        content = bytes(300)
        await far.send(b"\xac\x02" + content[:100])
        await far.send(content[100:] + b"next")
        assert await stream.read_message(300) == content
        assert await stream.read() == b"next"
        await far.send(b"\xac")
        await far.send(b"\x02")
        with pytest.raises(ValueError, match="300 is over 299"):
            await stream.read_message(299)

    run(test, inbound=True)


@pytest.mark.parametrize("sent", [b"", b"\xac", b"\xac\x02only a part"])
def test_a_message_that_the_end_cuts_raises(sent: bytes) -> None:
    async def test(stream: GuardedNetStream, far: Far) -> None:
        await far.send(sent, flags=4)
        with pytest.raises(StreamEOF):
            await stream.read_message(300)

    run(test, inbound=True)
