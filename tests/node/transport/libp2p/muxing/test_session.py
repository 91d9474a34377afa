"""Noise messages as they arrive from a socket, and as they are written to it."""

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from noise.exceptions import NoiseInvalidMessage

from node.transport.libp2p.muxing.session import MESSAGE_BYTES, MeteredSession
from tests.node.transport.libp2p.muxing.wire import Wire


def run(test: Callable[[Wire, MeteredSession, list[float]], Awaitable[None]]) -> None:
    async def main() -> None:
        wire, paid = Wire(), list[float]()

        async def throttle(amount: float) -> None:
            paid.append(amount)

        await test(wire, MeteredSession(wire.session(), throttle, Counter()), paid)

    trio.run(main)


@pytest.mark.parametrize("size", [1, 2, 3, 19, 1000])
def test_messages_are_read_whole_however_the_socket_cuts_them(size: int) -> None:
    async def test(wire: Wire, session: MeteredSession, paid: list[float]) -> None:
        sent = wire.seal(b"first") + wire.seal(b"second") + wire.seal(b"x" * 300)
        wire.send(*(sent[start : start + size] for start in range(0, len(sent), size)))
        wire.end()
        received = b""
        while content := await session.receive():
            received += content
        assert received == b"firstsecond" + b"x" * 300
        assert sum(paid) == len(received) + 3 * MESSAGE_BYTES

    run(test)


def test_what_was_read_ahead_comes_first() -> None:
    async def test(wire: Wire, session: MeteredSession, paid: list[float]) -> None:
        before = wire.session()
        wire.send(wire.seal(b"negotiated, and more"))
        assert await before.read(10) == b"negotiated"
        after = MeteredSession(before, session.charge, Counter())
        assert await after.receive() == b", and more"

    run(test)


def test_empty_messages_are_paid_for() -> None:
    async def test(wire: Wire, session: MeteredSession, paid: list[float]) -> None:
        wire.send(wire.seal(b""), wire.seal(b"") + wire.seal(b"") + wire.seal(b"end"))
        assert await session.receive() == b"end"
        assert paid == [MESSAGE_BYTES, 3 * MESSAGE_BYTES + 3]

    run(test)


def test_a_changed_message_raises() -> None:
    async def test(wire: Wire, session: MeteredSession, paid: list[float]) -> None:
        message = bytearray(wire.seal(b"content"))
        message[-1] ^= 1
        wire.send(bytes(message))
        with pytest.raises(NoiseInvalidMessage):
            await session.receive()

    run(test)


@pytest.mark.parametrize("size", [1, MAX_PLAINTEXT_LENGTH, MAX_PLAINTEXT_LENGTH + 1, 200_000])
def test_a_write_is_one_write_of_as_few_messages_as_hold_it(size: int) -> None:
    async def test(wire: Wire, session: MeteredSession, paid: list[float]) -> None:
        await session.write(b"y" * size)
        assert len(wire.written) == 1
        sizes = [len(content) for content in wire.received()]
        assert sum(sizes) == size
        assert all(one == MAX_PLAINTEXT_LENGTH for one in sizes[:-1])

    run(test)
