"""Every known attack on the wire, a thousand times each: the node stays up, and serves others."""

import asyncio
import time
from collections.abc import Iterator
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
from node.version import AGENT
from protocol.manifest import blobs_of
from protocol.network import NetworkParameters
from protocol.wire.encoding import Document
from scripts.testnet_tool.nodes import create_network, events
from tests.integration.attacker import TIMES, Attack, Counts, Mute, Target, fresh_peer
from tests.integration.conftest import Running, task
from tests.integration.hostile import FLOODS, PARSERS
from tests.integration.light import RUNTIME, LightDaemons

GROWTH = 50 * 1024  # KiB of resident memory, at any moment of an attack and after it
SAMPLE_SECONDS = 0.05  # between two looks at it
BETWEEN_SECONDS = 0.5  # two new peers: each costs as much as many attacks
SERVED_SECONDS = 5.0  # an honest task of 0.05 s takes 0.2 s with nobody else there
LET_IN_SECONDS = 3.0  # a new peer is answered after 0.3 s with nobody else there; attacks hold 4 s
OPENED_SECONDS = 8.0  # for streams that are to be given up after 2 s; their negotiation after 10
ATTACK_SECONDS = 120.0  # ten times what the longest takes
SETTLE_SECONDS = 30.0  # until what an attack held is given back

# What is met by a limit never reaches the code behind it: for that, there is a node with none.
UNLIMITED = """
[limits]
ban_points = 1e6
streams_per_second = 1e6
messages_per_second = 1e6
max_streams_per_peer = 100_000
submissions_per_minute = 1e6
bytes_per_second = 999_999_999
"""
# Answers of 1.2 MB, more than is ever sent to one who does not read.
LONG = ["--frames=300000"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """A network of one light node with the default limits, and one without limits."""
    found = {}
    with ExitStack() as stack:
        for name, toml, more in (("limited", "", LONG), ("unlimited", UNLIMITED, [])):
            root = tmp_path_factory.mktemp(name)
            network, nodes = create_network(
                root, 1, RUNTIME, NetworkParameters(commit_grace_seconds=0.2)
            )
            config = root / "helium.toml"
            config.write_text(toml)
            light = LightDaemons(
                root / "network.json", nodes, ["--seconds=0.05", f"--config={config}", *more]
            )
            daemons = stack.enter_context(light)
            daemons.wait_ready()
            found[name] = Running(network, daemons, root)
        yield found


class Process:
    """What the system says of the attacked process."""

    def __init__(self, found: Running) -> None:
        [running] = found.daemons._running.values()
        self._running, self._folder = running, Path(f"/proc/{running.pid}")

    @property
    def alive(self) -> bool:
        return self._running.poll() is None

    def memory(self) -> int:
        """Resident, KiB."""
        [line] = [
            row for row in (self._folder / "status").read_text().splitlines() if "VmRSS" in row
        ]
        return int(line.split()[1])

    def descriptors(self) -> int:
        return len(list((self._folder / "fd").iterdir()))

    async def settle(self, descriptors: int) -> None:
        """Wait until no more descriptors are open than before."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while self.descriptors() > descriptors:  # noqa: ASYNC110 - another process tells nobody
                await asyncio.sleep(0.1)


async def serve_honestly(client: Client, attack: "asyncio.Future[Counts]") -> list[float]:
    """Submit tasks for as long as the attack lasts; return how long each took, in seconds."""
    took: list[float] = []
    while not took or not attack.done():
        began = time.monotonic()
        async with asyncio.timeout(SERVED_SECONDS):
            submission = await client.submit("text-to-music", task(seed=len(took)))  # type: ignore[arg-type]
            await submission.result()
        took.append(time.monotonic() - began)
    return took


async def let_in(target: Target, attack: "asyncio.Future[Counts]") -> list[float]:
    """Come as one new peer after another, and be answered; return how long each took, seconds."""
    took: list[float] = []
    while not took or not attack.done():
        newcomer = fresh_peer()
        await newcomer.start(Mute(), (), ())
        began = time.monotonic()
        try:
            async with asyncio.timeout(LET_IN_SECONDS):
                await _greeted(newcomer, target)
        finally:
            await newcomer.stop()
        took.append(time.monotonic() - began)
        await asyncio.wait((attack,), timeout=BETWEEN_SECONDS)
    return took


async def _greeted(newcomer: Libp2pTransport, target: Target) -> None:
    greeting: Document = {"network": target.network.id, "agent": AGENT}
    while True:  # one turned away comes again
        with suppress(ConnectionError):
            peer = await newcomer.dial(target.address)
            await send_request(newcomer, peer, "hello", greeting)
            return


async def highest(process: Process, attack: "asyncio.Future[Counts]") -> int:
    """Return the most resident memory there was during the attack, KiB."""
    most = process.memory()
    while not attack.done():
        await asyncio.wait((attack,), timeout=SAMPLE_SECONDS)
        most = max(most, process.memory())
    return most


async def withstand(found: Running, attack: Attack) -> None:
    """Attack a node while honest peers use it, and compare it with what it was before."""
    process = Process(found)
    async with Client.connect(found.network, found.daemons.addresses) as client:
        submission = await client.submit("text-to-music", task())  # type: ignore[arg-type]
        [blob] = blobs_of((await submission.tracker.certificate()).outcome)
        await submission.result()
        target = Target(found.nodes[0].address, found.network, blob.sha256)
        memory, descriptors = process.memory(), process.descriptors()
        began = time.monotonic()
        async with asyncio.timeout(ATTACK_SECONDS), asyncio.TaskGroup() as group:
            attacking = group.create_task(attack(target))
            serving = group.create_task(serve_honestly(client, attacking))
            letting_in = group.create_task(let_in(target, attacking))
            measuring = group.create_task(highest(process, attacking))
        ended = time.monotonic()
        assert process.alive
        await process.settle(descriptors)
        grown, left = measuring.result() - memory, process.memory() - memory
        took, came = serving.result(), letting_in.result()
        print(
            f"{attack.__name__}: {dict(attacking.result())} in {ended - began:.1f} s; meanwhile "
            f"{len(took)} tasks, the slowest {max(took):.2f} s, {len(came)} new peers, the slowest "
            f"{max(came):.2f} s; at most {grown} KiB more, {left} KiB in the end, "
            f"settled after {time.monotonic() - ended:.1f} s"
        )
        assert min(attacking.result().values()) >= TIMES
        assert max(grown, left) < GROWTH
        assert not any(
            event.get("event") == "the libp2p host failed and is rebuilt"
            for event in events(found.nodes[0])
        )


@pytest.mark.parametrize("attack", PARSERS, ids=lambda attack: attack.__name__)
async def test_what_no_honest_peer_sends(networks: dict[str, Running], attack: Attack) -> None:
    await withstand(networks["unlimited"], attack)


@pytest.mark.parametrize("attack", FLOODS, ids=lambda attack: attack.__name__)
async def test_too_much_of_anything(networks: dict[str, Running], attack: Attack) -> None:
    await withstand(networks["limited"], attack)


def own_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Answering(Mute):
    """A peer that answers each stream with one byte."""

    async def serve(self, protocol: str, stream: Stream) -> None:
        await stream.write(b"!")


async def test_a_peer_that_takes_all_the_streams_there_are_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over 256 streams that it leaves unanswered, libp2p would wait for the next for ever."""
    monkeypatch.setattr(transport, "OPEN_SECONDS", 2.0)
    protocol = "/helium/1/hello"
    node, silent, honest = fresh_peer(), fresh_peer(), fresh_peer()
    async with AsyncExitStack() as stack:
        for peer, listener in ((node, Mute()), (silent, Mute()), (honest, Answering())):
            await peer.start(listener, (), (protocol,))
            stack.push_async_callback(peer.stop)
        await silent._bridge.run_in_trio(_answer_nothing, silent._host)
        for peer in (silent, honest):
            await node.dial(peer.addresses[0])

        async def answered() -> bool:
            stream = await node.open(honest.peer, protocol)
            said = await stream.read_exactly(1)
            await stream.close()
            return said == b"!"

        descriptors, ended = own_descriptors(), 0

        async def opened() -> None:
            nonlocal ended
            with pytest.raises(ConnectionError):
                await node.open(silent.peer, protocol)
            ended += 1

        began = time.monotonic()
        async with asyncio.timeout(OPENED_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(TIMES):
                group.create_task(opened())
            while ended < TIMES:
                assert await answered()
        print(f"{ended} streams were given up within {time.monotonic() - began:.1f} s")
        assert node.rebuilds == 0
        assert own_descriptors() <= descriptors


async def _answer_nothing(host: Host | None) -> None:
    async def ignore(stream: object) -> None:
        await trio.sleep_forever()

    assert host is not None
    host.swarm.set_stream_handler(ignore)


def test_what_was_met_is_told_to_the_operator(networks: dict[str, Running]) -> None:
    """The last test here: it stops the nodes, which tell all their counts on stopping."""
    met: dict[str, Any] = {}
    for name, found in networks.items():
        found.daemons.stop()
        [*_, last] = [event for event in events(found.nodes[0]) if event["event"] == "limits"]
        met[name] = last
        print(name, last)
    assert met["unlimited"]["messages-rejected"] >= 5 * TIMES  # each kind of `bad_messages`
    refused = {"streams-refused", "requests-refused", "submissions-refused", "unread-cut"}
    assert {*refused, "gossip-slowed"} <= met["limited"].keys()
