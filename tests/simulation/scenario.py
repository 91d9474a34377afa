"""Draws a scenario from a seed: network, adversaries, link policy and faults.

The scenario is drawn completely before the run, so a seed always gives the same scenario.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.simulation.faults import CRASH_POINTS
from tests.support import fixtures
from tests.support.memory_transport.network import Link

# Seconds: task deadline, grace period and attempt of all scenarios.
DEADLINE = 300
GRACE = 2.0
ATTEMPT = 40.0
# The part of the scenarios in which old copies of databases are put back, and how long their nodes
# are away.
RESTORES = 0.15
OFFLINE_SECONDS = 15.0
# Up to this size nearly all members of a network are neighbours.
FULL_MESH = 5

# Roles of members that run the daemon with another executor or blob store, with the label of
# their `doubles.FakeExecutor`.
LABELS = {
    "honest": "honest",
    "wrong result": "wrong",
    "wrong result, alone": "wrong alone",
    "hasty wrong result": "wrong@0.3",
    "silent": "silent",
    "operator with many peers": "wrong of many",
    "late": "honest@50",  # longer than an attempt
    "lying blobs": "honest",  # votes correctly, but serves wrong bytes
}
AGENT_ROLES = (
    "copycat",
    "commitment thief",
    "equivocator",
    "split equivocator",
    "manifold equivocator",
    "double revealer",
    "misopener",
    "withholder",
    "late joiner",
    "wrong class",
    "intruder",
    "replayer",
    "commitment replayer",
    "certificate forger",
    "turncoat",
)
# The roles of a faulty roster member.
MEMBERS = (*(label for label in LABELS if label != "honest"), *AGENT_ROLES)
# The roles of a peer outside the roster. Their number has no bound.
OUTSIDERS = (
    "forger",
    "garbler",
    "replayer",
    "lying feed",
    "bad requester",
    "flooder",
    "nonce grinder",
    "certificate forger",
    "requester thief",
    "withdrawer",
)
OTHER_CLASS = "gpu"
# The operator of several members.
MANY = "operator-of-many"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at `at` for `seconds`: "crash", "partition", "full" or "broken" (a disk), "restore".

    A restore puts a copy of the database back that is `seconds` old, or an empty one if 0. A crash
    happens at the `crash_point`-th crash point from then on, or at once if 0. If `only` is set,
    only that kind of point counts.
    """

    kind: str
    at: float
    seconds: float
    who: tuple[int, ...]
    crash_point: int = 0
    only: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run before it starts. Times are in seconds; indices are those of `fixtures`."""

    seed: int
    network: Network
    roles: tuple[str, ...]  # of the roster, in its order
    outsiders: tuple[str, ...]
    link: Link
    skews: tuple[float, ...]
    execution: tuple[float, float]
    abstains: float  # probability that an honest execution abstains
    feed_seconds: float
    submissions: tuple[float, ...]  # times
    faults: tuple[Fault, ...]
    max_open: int

    @property
    def synchronous(self) -> bool:
        """Whether all honest messages arrive within the grace period (specification 1)."""
        hops = 2 if len(self.roles) <= FULL_MESH else 4  # between any two peers of the mesh
        spread = self.execution[1] - self.execution[0] + hops * self.link.delay[1]
        quiet = not self.faults and not self.link.loss and not self.abstains
        busy = len(self.submissions) > 1 or set(self.outsiders) & _MAKE_WORK  # executions queue
        return quiet and spread < GRACE and not busy

    @property
    def faulty_until(self) -> float:
        ends = [t.at + (OFFLINE_SECONDS if t.kind == "restore" else t.seconds) for t in self.faults]
        return max(ends, default=0.0)

    def honest(self, index: int) -> bool:
        return self.roles[index] == "honest"

    @property
    def honest_peers(self) -> frozenset[str]:
        return frozenset(fixtures.peer(i) for i in range(len(self.roles)) if self.honest(i))


_MAKE_WORK = {
    "flooder",
    "bad requester",
    "nonce grinder",
    "garbler",
    "requester thief",
    "withdrawer",
}


def draw(
    seed: int,
    members: int,
    faulty: int,
    member_roles: Sequence[str] = MEMBERS,
    outsider_roles: Sequence[str] = OUTSIDERS,
) -> Scenario:
    """Return the scenario of a seed with `members` in the roster, `faulty` of them.

    The faulty members take `member_roles`. Up to two peers outside the roster take
    `outsider_roles`.
    """
    scenario = _draw(seed, members, faulty, member_roles, outsider_roles)
    return _with_restores(_with_work(scenario))


def _draw(
    seed: int,
    members: int,
    faulty: int,
    member_roles: Sequence[str],
    outsider_roles: Sequence[str],
) -> Scenario:
    rng = random.Random(seed)
    roles = ["honest"] * (members - faulty) + [rng.choice(member_roles) for _ in range(faulty)]
    rng.shuffle(roles)
    outsiders = tuple(
        rng.choice(outsider_roles) for _ in range(rng.choice((0, 0, 1, 2)) if outsider_roles else 0)
    )
    synchronous = rng.random() < 0.3
    low = rng.uniform(1.0, 4.0)
    link = _link(rng, synchronous, members)
    spread = min(1.2, GRACE - 0.1 - 2 * link.delay[1]) if synchronous else rng.uniform(0.5, 12.0)
    return Scenario(
        seed,
        _network(rng, roles),
        tuple(roles),
        outsiders,
        link,
        tuple(rng.choice((0.0, 1.0)) * rng.uniform(-29.0, 29.0) for _ in roles),
        (low, low + spread),
        0.0 if synchronous else rng.choice((0.0, 0.0, 0.1)),
        rng.choice((5.0, 12.0, 20.0)) if members < 12 else 25.0,
        tuple(rng.uniform(0.5, 6.0) for _ in range(1 if synchronous else rng.choice((1, 1, 2)))),
        () if synchronous else tuple(_fault_at(rng, members) for _ in range(rng.randint(0, 5))),
        rng.choice((3, 1000)) if not synchronous else 1000,
    )


def _with_work(scenario: Scenario) -> Scenario:
    """Let tasks prove work, in some scenarios: outcomes then have work and tokens."""
    rng = random.Random(f"work {scenario.seed}")
    if rng.random() > 0.3:
        return scenario
    document: Any = copy.deepcopy(scenario.network.document)
    document["classes"][fixtures.CLASS]["engine"] = "helium"
    document["models"][0]["replay"] = True
    return replace(scenario, network=Network.of(document))


def _with_restores(scenario: Scenario) -> Scenario:
    """Put old copies of databases back, in some scenarios: where the votes can be recovered.

    A majority of a member's other operators must be honest (specification 6.12). Before each, the
    run waits until the member's votes have reached each honest node.
    """
    rng = random.Random(f"restores {scenario.seed}")
    if scenario.synchronous or rng.random() > RESTORES:  # synchronous ones have no faults
        return scenario
    roster = list(scenario.network.roster.values())
    honest = [role == "honest" for role in scenario.roles]
    faulty = {m.operator for m, is_honest in zip(roster, honest, strict=True) if not is_honest}
    who = rng.choice([index for index, is_honest in enumerate(honest) if is_honest])
    others = {m.operator for m in roster} - {roster[who].operator}
    if 2 * len(others - faulty) <= len(others):
        return scenario
    faults = []
    at = 0.0
    for _ in range(rng.randint(1, 2)):
        at += rng.uniform(3.0, 20.0)
        faults.append(Fault("restore", at, rng.choice((0.0, rng.uniform(0.5, at))), (who,)))
        at += OFFLINE_SECONDS
    link = replace(scenario.link, loss=0.0)
    return replace(scenario, faults=tuple(faults), link=link)


def _network(rng: random.Random, roles: Sequence[str]) -> Network:
    document: dict[str, Any] = fixtures.network_document(
        len(roles),
        committee_size=rng.choice((1, 2, 3, 3, 4, 5)),
        committee_max=rng.choice((5, 7, 7, 9)),
        attempt_seconds=ATTEMPT,
        commit_grace_seconds=GRACE,
    )
    document["classes"][OTHER_CLASS] = {"device": "cuda", "torch": "2.13.0"}
    shared = rng.random() < 0.3  # some members share an operator
    for index, role in enumerate(roles):
        line = document["roster"][index]
        if role == "wrong class":
            line["classes"] = [OTHER_CLASS]
        if role in ("intruder", "operator with many peers") or (shared and rng.random() < 0.3):
            line["operator"] = MANY
    if "intruder" in roles and sum(m["operator"] == MANY for m in document["roster"]) == 1:
        twin = next(i for i, role in enumerate(roles) if role not in ("intruder", "wrong class"))
        document["roster"][twin]["operator"] = MANY  # or the operator rule would not apply
    return Network.parse(canonical(document))


def _link(rng: random.Random, synchronous: bool, members: int) -> Link:
    if synchronous:
        delay = (0.005, rng.choice((0.2, 0.8)) if members <= FULL_MESH else 0.15)
    else:
        delay = (0.005, rng.choice((0.05, 0.2, 0.8, 3.0)))
    loss = 0.0 if synchronous else rng.choice((0.0, 0.1, 0.2, 0.3))
    return Link(delay, loss=loss, duplication=0.1, reordering=0.2)


def _fault_at(rng: random.Random, members: int) -> Fault:
    kind = rng.choice(("crash", "crash", "crash", "crash", "partition", "full", "broken"))
    at, seconds = rng.uniform(0.0, 25.0), rng.uniform(0.2, 20.0)
    if kind == "partition":
        who = tuple(sorted(rng.sample(range(members), members // 2)))
        return Fault(kind, at, 3 * seconds, who)
    crash_point = rng.choice((0, rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 60)))
    only = "" if crash_point > 4 else rng.choice(CRASH_POINTS)
    return Fault(kind, at, seconds, (rng.randrange(members),), crash_point, only)


def size(seed: int, members: tuple[int, int], faulty: int | None) -> tuple[int, int]:
    """Return the number of members and of faulty members; most networks are small.

    If `faulty` is None, honest members have a majority in nine of ten scenarios.
    """
    rng = random.Random(seed ^ 0x5EED)
    low, high = members
    count = low + int((high - low + 1) * rng.random() ** 2.5)
    if faulty is not None:
        return count, min(faulty, count - 1)
    maximum = count - 1 if rng.random() < 0.1 else (count - 1) // 2
    return count, rng.randint(0, maximum)
