"""Each known attack on the wire, a thousand times. The node stays up and serves honest peers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from node.client.client import Client
from node.rpc.client import send_request
from node.transport.interface import Stream
from node.transport.libp2p import transport
from node.transport.libp2p.host import Host
from node.transport.libp2p.transport import Libp2pTransport
from protocol.manifest import blobs_of
from protocol.network import NetworkParameters
from protocol.wire.encoding import Document
from scripts.testnet_tool.nodes import create_network, events
from tests.integration.attacker import TIMES, Attack, Counts, SilentListener, Target, fresh_peer
from tests.integration.conftest import Running, task
from tests.integration.hostile import FLOODS, PARSERS
from tests.integration.light import CLASSES, LightDaemons
from tests.support import fixtures

# KiB of resident memory that an attack may cost at any moment.
GROWTH = 50 * 1024
# Between two samples of the memory.
SAMPLE_SECONDS = 0.05
# Between two new peers. Each costs as much as many attacks.
JOIN_PAUSE_SECONDS = 0.5
# Honest peers may take this many times what they take before the attack, at least MIN_SECONDS.
# A factor instead of a deadline, so that a slow or busy machine does not fail the test.
MAX_SLOWDOWN = 20
MIN_SECONDS = 15.0
# Only a hang takes as long: opening streams, one attack, and freeing what it held.
HANG_SECONDS = 300.0

# Limits hide the code behind them, so one node has none.
UNLIMITED = """
[limits]
ban_points = 1e6
streams_per_second = 1e6
messages_per_second = 1e6
max_streams_per_peer = 100_000
submissions_per_minute = 1e6
bytes_per_second = 999_999_999
"""
# Answers of 1.2 MB: more than the node buffers for a peer that does not read.
LONG = ["--frames=300000"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """A network of one light node with the default limits, and one without limits."""
    running = {}
    with ExitStack() as stack:
        for name, toml, more in (("limited", "", LONG), ("unlimited", UNLIMITED, [])):
            root = tmp_path_factory.mktemp(name)
            network, nodes = create_network(
                root, 1, CLASSES, NetworkParameters(commit_grace_seconds=0.2)
            )
            config = root / "helium.toml"
            config.write_text(toml)
            light = LightDaemons(
                root / "network.json", nodes, ["--seconds=0.05", f"--config={config}", *more]
            )
            daemons = stack.enter_context(light)
            daemons.wait_ready()
            running[name] = Running(network, daemons, root)
        yield running


class Process:
    """The attacked process, as the system reports it."""

    def __init__(self, network: Running) -> None:
        [process] = network.daemons._running.values()
        self._process, self._folder = process, Path(f"/proc/{process.pid}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def memory(self) -> int:
        """Return the resident memory in KiB."""
        [line] = [
            row for row in (self._folder / "status").read_text().splitlines() if "VmRSS" in row
        ]
        return int(line.split()[1])

    def descriptors(self) -> int:
        return len(list((self._folder / "fd").iterdir()))

    async def settle(self, descriptors: int) -> None:
        """Wait until the node has closed the descriptors of the attack."""
        async with asyncio.timeout(HANG_SECONDS):
            while self.descriptors() > descriptors:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.1)


async def submit_once(client: Client, seed: int) -> float:
    """Submit a task and fetch its result; return the seconds it took."""
    start = time.monotonic()
    submission = await client.submit("text-to-music", task(seed=seed))  # type: ignore[arg-type]
    await submission.result()
    return time.monotonic() - start


async def join_once(target: Target) -> float:
    """Connect as a new peer and exchange greetings; return the seconds it took."""
    newcomer = fresh_peer()
    await newcomer.start(SilentListener(), (), ())
    start = time.monotonic()
    try:
        await _greet(newcomer, target)
        return time.monotonic() - start
    finally:
        await newcomer.stop()


async def repeat_during(
    attack: "asyncio.Future[Counts]",
    action: Callable[[int], Awaitable[float]],
    baseline: float,
    pause: float = 0.0,
) -> list[float]:
    """Repeat an honest action while the attack lasts; return the seconds of each.

    Raises TimeoutError if one takes far longer than `baseline`, its time before the attack.
    """
    durations: list[float] = []
    while not durations or not attack.done():
        async with asyncio.timeout(max(MIN_SECONDS, MAX_SLOWDOWN * baseline)):
            durations.append(await action(len(durations)))
        await asyncio.wait((attack,), timeout=pause)
    return durations


async def _greet(newcomer: Libp2pTransport, target: Target) -> None:
    greeting: Document = fixtures.hello_request(target.network.id)
    while True:  # the node may refuse it at first
        with suppress(ConnectionError):
            peer = await newcomer.dial(target.address)
            await send_request(newcomer, peer, "hello", greeting)
            return


async def peak_memory(process: Process, attack: "asyncio.Future[Counts]") -> int:
    """Return the peak resident memory during the attack in KiB."""
    peak = process.memory()
    while not attack.done():
        await asyncio.wait((attack,), timeout=SAMPLE_SECONDS)
        peak = max(peak, process.memory())
    return peak


async def withstand(network: Running, attack: Attack) -> None:
    """Attack a node while honest peers use it. Compare memory and latency with before."""
    process = Process(network)
    async with Client.connect(network.network, network.daemons.addresses) as client:
        submission = await client.submit("text-to-music", task())  # type: ignore[arg-type]
        [blob] = blobs_of((await submission.tracker.certificate()).outcome)
        await submission.result()
        target = Target(network.nodes[0].address, network.network, blob.sha256)
        served, joined = await submit_once(client, 10_000), await join_once(target)
        memory, descriptors = process.memory(), process.descriptors()
        start = time.monotonic()
        async with asyncio.timeout(HANG_SECONDS), asyncio.TaskGroup() as group:
            attacking = group.create_task(attack(target))
            serving = group.create_task(
                repeat_during(attacking, lambda number: submit_once(client, number), served)
            )
            joining = group.create_task(
                repeat_during(attacking, lambda _: join_once(target), joined, JOIN_PAUSE_SECONDS)
            )
            measuring = group.create_task(peak_memory(process, attacking))
        end = time.monotonic()
        assert process.alive
        await process.settle(descriptors)
        peak_growth, growth = measuring.result() - memory, process.memory() - memory
        tasks, joins = serving.result(), joining.result()
        print(
            f"{attack.__name__}: {dict(attacking.result())} in {end - start:.1f} s; meanwhile "
            f"{len(tasks)} tasks, the slowest {max(tasks):.2f} s ({served:.2f} s before), "
            f"{len(joins)} new peers, the slowest {max(joins):.2f} s ({joined:.2f} s before); "
            f"at most {peak_growth} KiB more, {growth} KiB at the end, "
            f"settled after {time.monotonic() - end:.1f} s"
        )
        assert min(attacking.result().values()) >= TIMES
        assert max(peak_growth, growth) < GROWTH
        assert not any(
            event.get("event") == transport.REBUILDING for event in events(network.nodes[0])
        )


@pytest.mark.parametrize("attack", PARSERS, ids=lambda attack: attack.__name__)
async def test_node_withstands_malformed_traffic(
    networks: dict[str, Running], attack: Attack
) -> None:
    await withstand(networks["unlimited"], attack)


@pytest.mark.parametrize("attack", FLOODS, ids=lambda attack: attack.__name__)
async def test_node_withstands_floods(networks: dict[str, Running], attack: Attack) -> None:
    await withstand(networks["limited"], attack)


def descriptors_of_this_process() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class AnsweringListener(SilentListener):
    """A peer that answers each stream with one byte."""

    async def serve(self, protocol: str, stream: Stream) -> None:
        await stream.write(b"!")


async def test_opening_streams_to_a_silent_peer_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a timeout, libp2p waits for ever after 256 unanswered streams."""
    monkeypatch.setattr(transport, "OPEN_SECONDS", 2.0)
    protocol = "/helium/2/hello"
    node, silent, honest = fresh_peer(), fresh_peer(), fresh_peer()
    async with AsyncExitStack() as stack:
        for peer, listener in (
            (node, SilentListener()),
            (silent, SilentListener()),
            (honest, AnsweringListener()),
        ):
            await peer.start(listener, (), (protocol,))
            stack.push_async_callback(peer.stop)
        await silent._bridge.run_in_trio(_answer_nothing, silent._host)
        for peer in (silent, honest):
            await node.dial(peer.addresses[0])

        async def honest_peer_answers() -> bool:
            stream = await node.open(honest.peer, protocol)
            answer = await stream.read_exactly(1)
            await stream.close()
            return answer == b"!"

        descriptors, ended = descriptors_of_this_process(), 0

        async def open_in_vain() -> None:
            nonlocal ended
            with pytest.raises(ConnectionError):
                await node.open(silent.peer, protocol)
            ended += 1

        start = time.monotonic()
        async with asyncio.timeout(HANG_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(TIMES):
                group.create_task(open_in_vain())
            while ended < TIMES:
                assert await honest_peer_answers()
        print(f"{ended} streams were given up within {time.monotonic() - start:.1f} s")
        assert node.rebuilds == 0
        assert descriptors_of_this_process() <= descriptors


async def _answer_nothing(host: Host | None) -> None:
    async def ignore(stream: object) -> None:
        await trio.sleep_forever()

    assert host is not None
    host.swarm.set_stream_handler(ignore)


def test_limits_are_logged_when_the_node_stops(networks: dict[str, Running]) -> None:
    """The last test of this module: it stops the nodes, which then log their counts."""
    limits: dict[str, Any] = {}
    for name, network in networks.items():
        network.daemons.stop()
        [*_, last] = [event for event in events(network.nodes[0]) if event["event"] == "limits"]
        limits[name] = last
        print(name, last)
    assert limits["unlimited"]["messages-rejected"] >= 5 * TIMES  # each kind of `bad_messages`
    # Whether a connection is cut for unread bytes depends on the machine: test_yamux counts those.
    refused = {"streams-refused", "requests-refused", "submissions-refused"}
    assert {*refused, "gossip-slowed"} <= limits["limited"].keys()
