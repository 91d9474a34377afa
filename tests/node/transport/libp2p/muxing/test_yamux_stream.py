"""Yamux frames as they arrive, and as they are written."""

import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from libp2p.network.connection.exceptions import RawConnError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE
from trio.testing import MockClock, wait_all_tasks_blocked

from node.transport.libp2p.muxing import yamux
from node.transport.libp2p.muxing.yamux import GuardedYamux
from node.transport.libp2p.muxing.yamux_stream import FRAME_CONTENT
from tests.node.transport.libp2p.muxing.wire import Wire

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
OURS, THEIRS = 1, 2  # the near end has dialled: its streams have odd numbers


def frame(
    kind: int, flags: int, stream: int, content: bytes = b"", length: int | None = None
) -> bytes:
    size = len(content) if length is None else length
    return struct.pack("!BBHII", 0, kind, flags, stream, size) + content


FIRST_PING = frame(PING, SYN, 0, length=1)


def run(test: Callable[[Wire, GuardedYamux], Awaitable[None]]) -> None:
    async def main() -> None:
        wire = Wire()
        muxer = wire.muxer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(muxer.start)
            await muxer.event_started.wait()
            await wait_all_tasks_blocked()
            assert wire.received() == [FIRST_PING]
            await test(wire, muxer)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0.01))


async def send(wire: Wire, *frames: bytes) -> None:
    wire.send(wire.seal(b"".join(frames)))
    await wait_all_tasks_blocked()


def test_a_stream_is_opened_with_its_first_bytes_in_one_write() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        assert wire.written == []
        await stream.write(b"request")
        assert wire.received() == [frame(WINDOW, SYN, OURS) + frame(DATA, 0, OURS, b"request")]
        await stream.close()
        assert wire.received() == [frame(WINDOW, FIN, OURS)]

    run(test)


def test_the_last_bytes_and_the_end_are_one_write() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        await stream.write(b"request", last=True)
        frames = frame(WINDOW, SYN, OURS) + frame(DATA, 0, OURS, b"request")
        assert wire.received() == [frames + frame(WINDOW, FIN, OURS)]
        with pytest.raises(MuxedStreamError):
            await stream.write(b"more")

    run(test)


def test_what_has_arrived_is_read_without_waiting() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        await send(wire, frame(DATA, SYN, THEIRS, b"request"))
        stream = await muxer.accept_stream()
        assert [stream.read_nowait(4), stream.read_nowait(4)] == [b"requ", b"est"]
        assert stream.read_nowait(4) == b""

    run(test)


def test_a_read_sends_the_opening_of_a_stream_on_which_nothing_was_written() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.read)
            await wait_all_tasks_blocked()
            assert wire.received() == [frame(WINDOW, SYN, OURS)]
            await send(wire, frame(DATA, 0, OURS, b"greeting"))

    run(test)


@pytest.mark.parametrize("cut", [1, 11, 12, 13, 1000])
def test_frames_are_read_whole_however_they_are_cut(cut: int) -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        frames = frame(WINDOW, SYN, THEIRS) + frame(DATA, 0, THEIRS, b"first")
        frames += frame(DATA, FIN, THEIRS, b", last")
        for start in range(0, len(frames), cut):
            wire.send(wire.seal(frames[start : start + cut]))
        stream = await muxer.accept_stream()
        await wait_all_tasks_blocked()
        assert await stream.read() == b"first, last"
        with pytest.raises(MuxedStreamEOF):
            await stream.read()

    run(test)


@pytest.mark.parametrize("flags", [SYN, SYN | FIN])
def test_a_stream_may_be_opened_with_content(flags: int) -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        await send(wire, frame(DATA, flags, THEIRS, b"request"))
        stream = await muxer.accept_stream()
        assert await stream.read(3) == b"req"
        assert await stream.read(100) == b"uest"
        assert stream.recv_closed == bool(flags & FIN)
        await stream.write(b"answer")
        assert wire.received() == [frame(WINDOW, ACK, THEIRS) + frame(DATA, 0, THEIRS, b"answer")]

    run(test)


def test_an_acknowledgement_may_carry_content_and_the_end() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        await stream.write(b"request")
        await send(wire, frame(DATA, ACK | FIN, OURS, b"answer"))
        assert await stream.read() == b"answer"
        with pytest.raises(MuxedStreamEOF):
            await stream.read()

    run(test)


def test_the_window_is_opened_again_once_half_of_it_is_used() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        await stream.write(b"request")
        wire.received()
        half = DEFAULT_WINDOW_SIZE // 2
        for size in (1, 50_000, half - 50_002):
            for start in range(0, size, 50_000):
                await send(wire, frame(DATA, 0, OURS, bytes(min(50_000, size - start))))
            assert len(await stream.read()) == size
        await wait_all_tasks_blocked()
        assert wire.received() == []
        await send(wire, frame(DATA, 0, OURS, b"x"))
        assert await stream.read() == b"x"
        await wait_all_tasks_blocked()
        # What was read, and the growth of the window, which is doubled for a fast peer.
        assert wire.received() == [frame(WINDOW, 0, OURS, length=half + DEFAULT_WINDOW_SIZE)]

    run(test)


def test_a_writer_waits_for_the_window() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        stream.send_window = 10
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, b"0123456789and the rest")
            await wait_all_tasks_blocked()
            assert wire.received() == [
                frame(WINDOW, SYN, OURS) + frame(DATA, 0, OURS, b"0123456789")
            ]
            await send(wire, frame(WINDOW, 0, OURS, length=4))
            assert wire.received() == [frame(DATA, 0, OURS, b"and ")]
            await send(wire, frame(WINDOW, 0, OURS, length=1000))
            assert wire.received() == [frame(DATA, 0, OURS, b"the rest")]

    run(test)


@pytest.mark.parametrize("ending", [frame(WINDOW, RST, OURS), frame(GO_AWAY, 0, 0)])
def test_a_writer_that_waits_for_the_window_ends_with_its_stream(ending: bytes) -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        stream.send_window = 0
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                with pytest.raises(MuxedStreamError, match="closed"):
                    await stream.write(b"never sent")

            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            await send(wire, ending)
        assert trio.current_time() < 4  # not by the timeout

    run(test)


def test_a_long_write_is_in_frames_that_fit_a_noise_message() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        await stream.write(bytes(FRAME_CONTENT + 1))
        first, second, third = wire.received()
        assert first + second == frame(WINDOW, SYN, OURS) + frame(
            DATA, 0, OURS, bytes(FRAME_CONTENT)
        )
        assert third == frame(DATA, 0, OURS, b"\0")

    run(test)


def test_frames_that_wait_for_a_write_are_written_together() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        streams = [await muxer.open_stream() for _ in range(3)]
        released = trio.Event()
        wire.blocked = released.wait
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.write, b"%d" % stream.stream_id)
                await wait_all_tasks_blocked()
            released.set()
        first, rest = wire.received()
        opened = b"".join(frame(WINDOW, SYN, stream.stream_id) for stream in streams)
        assert first == opened + frame(DATA, 0, 1, b"1")
        assert rest == frame(DATA, 0, 3, b"3") + frame(DATA, 0, 5, b"5")

    run(test)


def test_a_peer_that_does_not_read_is_cut_and_its_writers_end() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        streams = [await muxer.open_stream() for _ in range(2)]
        wire.blocked = trio.sleep_forever

        async def write(index: int) -> None:
            with pytest.raises(RawConnError):
                await streams[index].write(b"never read")

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for index in range(2):
                nursery.start_soon(write, index)
        assert trio.current_time() - began == pytest.approx(yamux.STALLED_SECONDS, abs=1)
        await wait_all_tasks_blocked()
        assert muxer.is_closed

    run(test)


def test_a_ping_is_answered() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        await send(wire, frame(PING, SYN, 0, length=7), frame(PING, SYN, 0, length=8))
        assert wire.received() == [frame(PING, ACK, 0, length=7) + frame(PING, ACK, 0, length=8)]

    run(test)


def test_a_peer_is_pinged_only_if_nothing_came_from_it_lately() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        def pings() -> list[bytes]:
            return [content for content in wire.received() if content.startswith(FIRST_PING[:4])]

        wire.received()
        for number in range(10):
            await trio.sleep(yamux.PING_EVERY * 0.7)
            await send(wire, frame(PING, SYN, 0, length=number))
        assert pings() == []
        await trio.sleep(yamux.PING_EVERY * 2.5)
        assert len(pings()) == 2

    run(test)


def test_what_waits_for_a_stream_is_sent_with_the_next_ping_at_the_latest() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        await send(wire, frame(DATA, SYN, THEIRS, b"a"))
        wire.received()
        for _ in range(3):  # the peer is heard, so it is not pinged
            await trio.sleep(yamux.PING_EVERY * 0.5)
            await send(wire, frame(WINDOW, 0, THEIRS))
        assert frame(WINDOW, ACK, THEIRS) in b"".join(wire.received())

    run(test)


def test_a_reset_ends_reading_and_drops_what_is_unread() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        await send(wire, frame(DATA, SYN, THEIRS, b"unread"), frame(WINDOW, RST, THEIRS))
        stream = await muxer.accept_stream()
        with pytest.raises(MuxedStreamReset):
            await stream.read()
        assert (muxer.unread(), muxer.streams) == (0, {})

    run(test)


def test_what_came_before_the_end_is_read_even_after_a_reset() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        await stream.write(b"request")
        await send(wire, frame(DATA, FIN, OURS, b"refused"), frame(WINDOW, RST, OURS))
        assert await stream.read() == b"refused"
        with pytest.raises(MuxedStreamReset):
            await stream.read()
        assert muxer.streams == {}

    run(test)


def test_a_second_opening_of_a_stream_is_reset() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        await send(wire, frame(WINDOW, SYN, THEIRS), frame(WINDOW, SYN, THEIRS))
        assert wire.received() == [frame(WINDOW, ACK, THEIRS) + frame(WINDOW, RST, THEIRS)]

    run(test)


@pytest.mark.parametrize(
    "hostile",
    [
        frame(DATA, 0, OURS, length=yamux.WINDOW_BYTES + 1),
        frame(DATA, SYN, THEIRS, length=2**32 - 1),
        b"".join(frame(DATA, 0, OURS, bytes(60_000)) for _ in range(36)),
    ],
    ids=["a long frame", "a long opening", "over the window"],
)
def test_more_than_was_granted_ends_the_connection(hostile: bytes) -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        await (await muxer.open_stream()).write(b"request")
        for start in range(0, len(hostile), 50_000):
            wire.send(wire.seal(hostile[start : start + 50_000]))
        await muxer.event_closed.wait()

    run(test)


def test_the_end_of_the_socket_ends_the_streams() -> None:
    async def test(wire: Wire, muxer: GuardedYamux) -> None:
        stream = await muxer.open_stream()
        wire.end()
        with pytest.raises(MuxedStreamReset):
            await stream.read()
        assert muxer.is_closed
        with pytest.raises(MuxedStreamError):
            await muxer.open_stream()

    run(test)
