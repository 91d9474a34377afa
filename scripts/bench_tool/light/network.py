"""Starts networks of light nodes, and reads what each node has used: processor, bytes, samples."""

import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from protocol.network import Network, NetworkParameters
from scripts.bench_tool.light.node import SAMPLE, SAMPLES, SAMPLES_FILE, TRAFFIC, TRAFFIC_FILE
from scripts.bench_tool.light.samples import PARTS
from scripts.bench_tool.output import progress
from scripts.testnet_tool.nodes import Daemons, LocalNode, create_network
from tests.integration.light import CLASSES, LightDaemons

# Seconds that a network has to start. A node needs two of a processor, a connection 0.1.
START_SECONDS = 900.0


class MeteredDaemons(LightDaemons):
    """Light daemons that count their bytes, and with `sample` sample their stacks."""

    def __init__(
        self, network_file: Path, nodes: Sequence[LocalNode], execution: float, sample: bool
    ) -> None:
        super().__init__(network_file, nodes, [f"--seconds={execution}"])
        self._sample = [SAMPLE] if sample else []

    def entry(self, node: LocalNode) -> list[str]:
        """Return the arguments of Python."""
        _, _, *flags = super().entry(node)
        return ["-m", "scripts.bench_tool.light.node", str(node.home), *self._sample, *flags]


@contextmanager
def running(
    count: int, parameters: NetworkParameters, execution: float, *, sample: bool
) -> Iterator[tuple[Network, MeteredDaemons]]:
    """Run `count` nodes whose executions take so many seconds, connected and ready.

    Raises NodeDown.
    """
    progress(f"starting {count} nodes")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "net"
        network, nodes = create_network(root, count, CLASSES, parameters)
        with MeteredDaemons(root / "network.json", nodes, execution, sample) as daemons:
            daemons.wait_ready(START_SECONDS)
            yield network, daemons


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node has used since its start: seconds of processor time, bytes, seconds by part."""

    processor: float
    received: int
    sent: int
    samples: tuple[float, ...]

    @classmethod
    def of(cls, daemons: Daemons, node: LocalNode) -> Self:
        """Read one running node."""
        processor = time.clock_gettime(_processor_clock(daemons.pid(node)))
        received, sent = TRAFFIC.unpack((node.home / TRAFFIC_FILE).read_bytes())
        samples = SAMPLES.unpack((node.home / SAMPLES_FILE).read_bytes())
        return cls(processor, received, sent, samples)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the nodes used within some seconds: by node, and the sampled seconds of all by part."""

    seconds: float
    processor: tuple[float, ...]
    received: tuple[int, ...]
    sent: tuple[int, ...]
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def processors_busy(self) -> float:
        """The number of processors that the nodes kept busy together."""
        return sum(self.processor) / self.seconds


class Meter:
    """Measures what the nodes of a network use from now until `read`."""

    def __init__(self, daemons: Daemons) -> None:
        self._daemons = daemons
        self._began = time.monotonic()
        self._before = [Reading.of(daemons, node) for node in daemons.nodes]

    def read(self) -> Usage:
        """Return what was used so far. Raises NodeDown if a node has ended."""
        self._daemons.check()
        seconds = time.monotonic() - self._began
        after = [Reading.of(self._daemons, node) for node in self._daemons.nodes]
        pairs = list(zip(self._before, after, strict=True))
        sampled = [
            sum(now.samples[index] - before.samples[index] for before, now in pairs)
            for index in range(len(PARTS))
        ]
        return Usage(
            seconds,
            tuple(now.processor - before.processor for before, now in pairs),
            tuple(now.received - before.received for before, now in pairs),
            tuple(now.sent - before.sent for before, now in pairs),
            dict(zip(PARTS, sampled, strict=True)),
        )


def machine() -> dict[str, float]:
    """Return the number of this machine's processors, and its load over the last minute."""
    return {
        "processors": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
    }


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Return the median of some values, the least and the greatest."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def _processor_clock(process: int) -> int:
    """Return the clock of a process's processor time, all its threads' (clock_getcpuclockid(3))."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(process, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return clock.value
