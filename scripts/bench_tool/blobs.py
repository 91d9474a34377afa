"""Measure a node that gives a blob to others: bytes per second, processor time, memory.

A light node on loopback, the real daemon, has a blob. Readers, each in a process of its own,
download it at once over libp2p as nodes do: every chunk is verified, and written to a blob store.
In the same run, as many readers get the same file over plain TCP sockets:

  plain    they drop the bytes
  hashed   they hash all and write it to a file that is synced, as whoever verifies a blob has to

The ratios are those of libp2p to a plain socket: of bytes per second, and of processor time for one
byte of both sides together. Memory is the peak of resident memory beyond that before the transfer:
it must not grow with the blob. The limit of bytes per second, 32 MiB by default, is lifted.

At the end, one reader's connection is cut after half of the blob. It dials again and asks for the
rest. What it received more than the blob's size is frames' headers, what was on its way at the cut,
and the part of a chunk that was not verified yet.

    scripts/bench blobs
    scripts/bench blobs --megabytes 20 --readers 1 2 --json
"""

import argparse
import asyncio
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from protocol.manifest import CHUNK_BYTES
from protocol.network import NetworkParameters
from scripts import arguments, one_line
from scripts.bench_tool.light.network import Meter, MeteredDaemons, machine
from scripts.bench_tool.light.transfer import UNLIMITED, Memory
from scripts.bench_tool.output import progress, report
from scripts.chaos_tool.proxy import HEALTHY, Link, LinkCondition
from scripts.testnet_tool.nodes import LocalNode, create_network
from tests.integration.light import CLASSES

MEGABYTE = 1_000_000
CUT_SECONDS = 0.5
POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Source:
    """A node that has a blob, the file of the blob, and its description."""

    daemons: MeteredDaemons
    file: Path
    description: Path
    size: int

    @property
    def node(self) -> LocalNode:
        """The node."""
        return self.daemons.nodes[0]


class _Daemons(MeteredDaemons):
    """Daemons without a limit of bytes per second."""

    def entry(self, node: LocalNode) -> list[str]:
        return [*super().entry(node), "--config", str(node.home / "config.toml")]


@contextmanager
def serving(root: Path, size: int) -> Iterator[Source]:
    """Run a node that has a blob of so many bytes. Raises NodeDown."""
    _, nodes = create_network(root / "net", 1, CLASSES, NetworkParameters())
    home = nodes[0].home
    (home / "config.toml").write_text(
        f"[limits]\nbytes_per_second = {UNLIMITED.bytes_per_second}\n"
    )
    payload = random.Random(size).randbytes(size)
    digest = hashlib.sha256(payload).hexdigest()
    (home / "blobs").mkdir(mode=0o700)
    file = home / "blobs" / digest
    file.write_bytes(payload)
    pieces = (payload[at : at + CHUNK_BYTES] for at in range(0, size, CHUNK_BYTES))
    chunks = [hashlib.sha256(piece).hexdigest() for piece in pieces]
    description = root / "blob.json"
    description.write_text(json.dumps({"sha256": digest, "size": size, "chunks": chunks}))
    del payload
    with _Daemons(root / "net" / "network.json", nodes, 0.05, sample=False) as daemons:
        daemons.wait_ready()
        yield Source(daemons, file, description, size)


class Side:
    """A process of `scripts.bench_tool.light.transfer`; leaving the block ends it."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-P", "-m", "scripts.bench_tool.light.transfer"]
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def line(self) -> dict[str, Any]:
        """Return the next line that it prints. Raises ValueError if it ended without."""
        assert self._process.stdout is not None
        document: dict[str, Any] = json.loads(self._process.stdout.readline())
        return document

    def begin(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def over_libp2p(source: Source, readers: int, folder: Path) -> dict[str, Any]:
    """Return what it costs to download the blob from the node, by so many readers at once."""
    with ExitStack() as stack:
        sides = [
            stack.enter_context(
                Side("node", source.description, source.node.address, folder / f"node-{index}")
            )
            for index in range(readers)
        ]
        for side in sides:
            side.line()
        memory, meter = Memory(source.daemons.pid(source.node)), Meter(source.daemons)
        for side in sides:
            side.begin()
        usages = [side.line() for side in sides]
        return cost(source, usages, meter.read().processor[0], memory.growth())


def over_sockets(source: Source, readers: int, folder: Path, kind: str) -> dict[str, Any]:
    """Return what it costs to send the file to so many sockets; `kind` is plain or hashed."""
    with ExitStack() as stack:
        server = stack.enter_context(Side("serve", source.file, readers))
        port = server.line()["port"]
        sides = []
        for index in range(readers):
            target = folder / f"{kind}-{index}"
            target.mkdir()
            sides.append(stack.enter_context(Side(kind, source.description, port, target)))
        for side in sides:
            side.line()
        for side in (server, *sides):
            side.begin()
        usages = [side.line() for side in sides]
        sent = server.line()
        return cost(source, usages, sent["processor"], sent["memory_mib"])


def cost(
    source: Source, usages: Sequence[Mapping[str, Any]], processor: float, memory: float
) -> dict[str, Any]:
    """Return the figures of a transfer: `processor` and `memory` are the sender's."""
    total = source.size * len(usages) / MEGABYTE
    seconds = max(usage["seconds"] for usage in usages)
    both = processor + sum(usage["processor"] for usage in usages)
    return {
        "mb_per_second": round(total / seconds, 1),
        "sender_ms_per_mb": round(1000 * processor / total, 2),
        "reader_ms_per_mb": round(1000 * (both - processor) / total, 2),
        "ms_per_mb": round(1000 * both / total, 2),
        "sender_memory_mib": round(memory, 1),
        "reader_memory_mib": round(max(usage["memory_mib"] for usage in usages), 1),
    }


def measure(source: Source, readers: int, folder: Path) -> dict[str, Any]:
    """Return the figures of so many readers."""
    progress(f"{readers} readers of {source.size / MEGABYTE:g} MB")
    folder.mkdir()
    row: dict[str, Any] = {"readers": readers, "megabytes": source.size / MEGABYTE, **machine()}
    row["libp2p"] = over_libp2p(source, readers, folder)
    row |= {kind: over_sockets(source, readers, folder, kind) for kind in ("plain", "hashed")}
    for kind in ("plain", "hashed"):
        speed = row["libp2p"]["mb_per_second"] / row[kind]["mb_per_second"]
        processor = row["libp2p"]["ms_per_mb"] / row[kind]["ms_per_mb"]
        row[f"to_{kind}"] = {"speed": round(speed, 3), "processor": round(processor, 1)}
    return row


async def measure_cut(source: Source, folder: Path) -> dict[str, Any]:
    """Return what a reader received whose connection was cut after half of the blob."""
    progress("a reader that is cut off")
    link = Link(source.node.port)
    await link.start()
    address = f"/ip4/127.0.0.1/tcp/{link.port}/p2p/{source.node.peer}"
    target = folder / "cut"
    try:
        with Side("node", source.description, address, target) as side:
            await asyncio.to_thread(side.line)
            side.begin()
            # Another process writes the file.
            while not (held := _received(target)) > source.size // 2:  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
            link.set_condition(LinkCondition(cut=True))
            await asyncio.sleep(CUT_SECONDS)
            link.set_condition(HEALTHY)
            usage = await asyncio.to_thread(side.line)
    finally:
        await link.stop()
    again = usage["received"] - source.size
    return {
        "megabytes": source.size / MEGABYTE,
        "cut_after_mb": round(held / MEGABYTE, 1),
        "received_mb": round(usage["received"] / MEGABYTE, 2),
        "beyond_size_mb": round(again / MEGABYTE, 2),
        "seconds": round(usage["seconds"], 2),
    }


def _received(folder: Path) -> int:
    """Return the bytes of the file that a blob store is writing."""
    return max((file.stat().st_size for file in folder.glob("*")), default=0)


def line(row: Mapping[str, Any]) -> str:
    """Return a row in words."""
    if "cut_after_mb" in row:
        return (
            f"cut after {row['cut_after_mb']:g} of {row['megabytes']:g} MB: the reader received"
            f" {row['received_mb']:g} MB in all, {row['beyond_size_mb']:g} more than the blob has,"
            f" in {row['seconds']:g} s"
        )
    figures = "".join(
        f"\n    {kind:7} {cost['mb_per_second']:7.1f} MB/s; ms of processor time per MB:"
        f" {cost['ms_per_mb']:6.2f} ({cost['sender_ms_per_mb']:.2f} sender,"
        f" {cost['reader_ms_per_mb']:.2f} readers); memory grew by"
        f" {cost['sender_memory_mib']:.1f} MiB at the sender, {cost['reader_memory_mib']:.1f} at a"
        " reader"
        for kind, cost in ((kind, row[kind]) for kind in ("libp2p", "plain", "hashed"))
    )
    return (
        f"{row['readers']} readers of {row['megabytes']:g} MB: {row['to_plain']['speed']:.2f} of"
        f" the speed of a plain socket, {row['to_hashed']['speed']:.2f} of one whose bytes are"
        f" hashed and kept; {row['to_plain']['processor']:.0f} and"
        f" {row['to_hashed']['processor']:.1f} times their processor time;"
        f" load {row['load_before']} before{figures}"
    )


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows that the arguments ask for."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with serving(root, int(options.megabytes * MEGABYTE)) as source:
            for number, readers in enumerate(options.readers):
                yield measure(source, readers, root / f"run-{number}")
            yield asyncio.run(measure_cut(source, root))


def main() -> None:
    """Measure the transfers that the arguments describe."""
    parser = arguments.Parser("scripts/bench blobs", __doc__)
    parser.add_argument(
        "--megabytes",
        type=arguments.number(1, 500, low_allowed=True),
        default=100.0,
        help="size of the blob in 10^6 bytes (default 100)",
    )
    parser.add_argument(
        "--readers",
        type=arguments.whole(1, 16),
        nargs="+",
        default=[1, 4],
        help="how many at once, in turn (default 1 4)",
    )
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    report(run(options), line, as_json=options.json)


if __name__ == "__main__":
    one_line.run(main)
