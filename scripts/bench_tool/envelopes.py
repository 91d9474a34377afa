"""Measure what a node pays for one envelope, beside a bare Ed25519 verification in the same run.

Without a network: one member's coordinator takes the tasks and votes of other members as the wire
brings them. Each round signs a task, two commits and two reveals. Of each it measures

  read     from bytes to a message: parsing, the schema, canonical bytes, the signature
  taken    from bytes to what the journal holds: validating, as for gossip, taking, and looking at
           all timers, as the daemon does after each message; in memory, and on disk

in processor time of the thread, which hardly depends on what else the machine does, as the median
of all rounds. The ratio is to a verification by the same library of the same bytes. "certifying" is
a reveal that completes a certificate; all other messages leave their task open. On disk, wall time
is given too: it contains the wait for the disk (in the folder for temporary files, TMPDIR).

All of it is repeated with --open other tasks open at the node. What grows with them is a walk over
all of them. A network of --nodes has so many members in its document, each of which a committee is
drawn from.

    scripts/bench envelopes --nodes 4 --open 0 300 3000
    scripts/bench envelopes --nodes 4 30 --rounds 50 --json
"""

import statistics
import tempfile
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from node.clock import Clock
from node.config import log_setup
from node.consensus.coordinator import Coordinator
from node.storage.database import open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.transport.interface import ValidationResult
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import domain
from protocol.wire.messages import Message, Task
from protocol.wire.signing import public_key_of
from schemas.errors import HeliumError
from scripts import arguments, one_line
from scripts.bench_tool.light.network import machine
from scripts.bench_tool.output import progress, report
from tests.support import fixtures
from tests.support.clock import ManualClock

KINDS = ("task", "commit", "reveal", "certifying")
STORAGE = ("memory", "disk")
# The measured member is the first; the second one has brought every task.
ME, SOURCE = 0, 1
# Numbers of tasks beyond any round, for those that only are open.
OPEN_FROM = 1_000_000


class NotTaken(HeliumError):
    """The node did not take an envelope that it should, so that the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one call: of the thread's processor time, and of wall time."""

    processor: float
    wall: float


Costs = dict[tuple[str, ...], list[Cost]]


@dataclass(frozen=True, slots=True)
class Case:
    """One task and the votes on it, by kind, as they travel."""

    task: Task
    envelopes: Mapping[str, bytes]


def case(network: Network, number: int) -> Case:
    """Return a task, and commits and reveals of two of its committee's other members."""
    task = fixtures.task(network, nonce=number)
    first, second = [p for p in committees(network, task)[0] if p != fixtures.peer(ME)][:2]
    outcome = fixtures.outcome()
    commits = {peer: fixtures.commitment_of(task, peer, outcome) for peer in (first, second)}
    messages: dict[str, Message] = {
        "task": task,
        "commit": fixtures.commit(network, task, first),
        "second commit": fixtures.commit(network, task, second),
        "reveal": fixtures.reveal(network, task, first, commits),
        "certifying": fixtures.reveal(network, task, second, commits),
    }
    return Case(task, {kind: message.envelope.encode() for kind, message in messages.items()})


class CoordinatorNode:
    """One member's coordinator, fed as the daemon feeds it."""

    def __init__(
        self,
        network: Network,
        journal: Journal,
        ledger: Ledger,
        max_open: int,
        clock: Clock | None = None,
    ) -> None:
        """Without another clock, its clock stands still."""
        self._source = fixtures.peer(SOURCE)
        self.coordinator = Coordinator(
            network, fixtures.key(ME), journal, ledger, clock or ManualClock(), bytes, max_open
        )

    def take(self, payload: bytes, *, is_task: bool) -> None:
        """Take an envelope from gossip. Raises NotTaken, Rejected or Busy."""
        result, message = self.coordinator.validator.validate(payload, tasks=is_task)
        if result is not ValidationResult.ACCEPT or message is None:
            raise NotTaken(f"an envelope was not accepted but {result.name}")
        self.coordinator.receive(message, self._source)
        # The daemon's timers run after each step (`Driver.run_timers`).
        self.coordinator.tick()
        self.coordinator.wake_at()


@contextmanager
def nodes(network: Network, already_open: int, rounds: int) -> Iterator[dict[str, CoordinatorNode]]:
    """Give a node for each kind of storage, at which so many tasks are open."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {"memory": ":memory:", "disk": f"{folder}/node.sqlite"}
        databases = {name: open_database(paths[name], network.id) for name in STORAGE}
        try:
            max_open = already_open + rounds + 1
            made = {
                name: CoordinatorNode(network, Journal(opened), Ledger(opened), max_open)
                for name, opened in databases.items()
            }
            for number in range(already_open):
                task = fixtures.task(network, nonce=OPEN_FROM + number)
                for node in made.values():
                    node.coordinator.receive(task, fixtures.peer(SOURCE))
            yield made
        finally:
            for database in databases.values():
                database.close()


def measure(network: Network, already_open: int, rounds: int) -> Costs:
    """Return the costs of every call, by what was done."""
    costs: Costs = {}

    def timed(key: tuple[str, ...], call: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.thread_time()
        call()
        processor = time.thread_time() - processor
        cost = Cost(processor, time.perf_counter() - wall)
        costs.setdefault(key, []).append(cost)

    with nodes(network, already_open, rounds) as by_storage:
        for number in range(rounds):
            measured = case(network, number)
            for kind, payload in measured.envelopes.items():
                timed(("bare", kind), bare_verification(network, payload))
                timed(("read", kind), partial(codec.decode, payload, network.id))
                for name, node in by_storage.items():
                    take = partial(node.take, payload, is_task=kind == "task")
                    timed(("taken", name, kind), take)
            for name, node in by_storage.items():
                view = node.coordinator.view(measured.task.id)
                if view is None or view.state is not State.AGREED:
                    raise NotTaken(f"a task has no certificate ({name})")
    return costs


def bare_verification(network: Network, payload: bytes) -> Callable[[], None]:
    """Return the verification of an envelope's signature over its signed bytes, and no more."""
    envelope = codec.decode(payload, network.id).envelope
    signature = urlsafe_b64decode(envelope.signature + "==")
    message = domain("envelope") + envelope.body_bytes
    return partial(public_key_of(envelope.signer).verify, signature, message)


def summary(costs: Costs) -> dict[str, Any]:
    """Return by envelope the medians in microseconds, and ratios to the bare verification."""
    result = {}
    for kind in KINDS:
        bare = _median(costs["bare", kind])
        taken = {name: _figure(costs["taken", name, kind], bare) for name in STORAGE}
        read = _figure(costs["read", kind], bare)
        result[kind] = {"bare_us": round(1e6 * bare, 1), "read": read, **taken}
    return result


def _figure(costs: Sequence[Cost], bare: float) -> dict[str, float]:
    processor = _median(costs)
    return {
        "us": round(1e6 * processor, 1),
        "ratio": round(processor / bare, 2),
        "wall_us": round(1e6 * statistics.median(cost.wall for cost in costs), 1),
    }


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.processor for cost in costs)


def line(row: Mapping[str, Any]) -> str:
    """Return a row as a small table."""
    lines = [
        f"{row['nodes']} nodes, {row['open']} tasks open, load {row['load_before']} before;"
        " microseconds (ratio to a bare verification):",
        f"  {'':<12}{'bare':>6}{'read':>15}{'memory':>17}{'disk':>17}{'disk, wall':>12}",
    ]
    for kind, figures in row["envelopes"].items():
        read, memory, disk = (
            f"{figures[name]['us']:.0f} ({figures[name]['ratio']:.2f})"
            for name in ("read", *STORAGE)
        )
        lines.append(
            f"  {kind:<12}{figures['bare_us']:>6.0f}{read:>15}{memory:>17}{disk:>17}"
            f"{figures['disk']['wall_us']:>12.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the networks and numbers of open tasks that the arguments name."""
    whole = arguments.whole
    parser = arguments.Parser("scripts/bench envelopes", __doc__)
    parser.add_argument(
        "--nodes",
        # At least three: two other members certify a task. The fixtures have 64 keys.
        type=whole(3, 64),
        nargs="+",
        default=[4],
        help="members of the network document, in turn (default 4)",
    )
    parser.add_argument(
        "--open",
        type=whole(0, 100_000),
        nargs="+",
        default=[0, 300, 3000],
        help="other open tasks, in turn (default 0 300 3000)",
    )
    parser.add_argument(
        "--rounds", type=whole(1, 10_000), default=100, help="of each envelope (default 100)"
    )
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    # Each task that is accepted would be a line.
    log_setup.configure("error", "auto")

    def rows() -> Iterator[dict[str, Any]]:
        for members in options.nodes:
            for already_open in options.open:
                progress(f"{members} nodes: opening {already_open} tasks")
                before = machine()
                costs = measure(fixtures.network(members), already_open, options.rounds)
                figures = {"envelopes": summary(costs)}
                yield {"nodes": members, "open": already_open, **before, **figures}

    report(rows(), line, as_json=options.json)


if __name__ == "__main__":
    one_line.run(main)
