"""What a seed stands for: the network, who breaks which rule, the weather and the faults.

Drawn whole before anything happens, so that one seed names one history whatever the code does.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.simulation.faults import BOUNDARIES
from tests.support import fixtures
from tests.support.memory_transport.network import Link

DEADLINE = 300  # seconds
GRACE = 2.0
ATTEMPT = 40.0
CLOSE = 5  # members of a network in which nearly all are neighbours

# Members that run the software with another executor: what it gives (see `executing`).
LABELS = {
    "honest": "honest",
    "wrong result": "wrong",
    "wrong result, alone": "wrong alone",
    "hasty wrong result": "wrong@0.3",
    "silent": "silent",
    "late": "honest@50",  # more than an attempt takes
    "lying blobs": "honest",  # votes rightly, and serves other bytes
}
AGENTS = (
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
)
MEMBERS = (*(label for label in LABELS if label not in ("honest", "lying blobs")), *AGENTS)
"""What a faulty roster member may be."""
SERVING = ("lying blobs",)
"""What it may be besides where there are streams to serve: among daemons."""
OUTSIDERS = (
    "forger",
    "garbler",
    "replayer",
    "lying feed",
    "bad requester",
    "flooder",
    "nonce grinder",
    "certificate forger",
)
"""What a peer outside the roster may be; there is no bound on their number."""
OTHER_CLASS = "gpu"
MANY = "operator-of-many"  # operates several members


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that goes wrong at `at` for `seconds`: "crash", "partition", "full", "broken".

    A crash comes at the `boundary`-th effect boundary from then on, or at once for 0; `only` that
    kind of boundary counts, or every one.
    """

    kind: str
    at: float
    seconds: float
    who: tuple[int, ...]
    boundary: int = 0
    only: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One history before it happens. Seconds; indices are those of `cast`."""

    seed: int
    network: Network
    roles: tuple[str, ...]  # of the roster, in its order
    outsiders: tuple[str, ...]
    link: Link
    skews: tuple[float, ...]
    execution: tuple[float, float]
    abstains: float  # probability that an honest execution gives no outcome
    feed_seconds: float
    submissions: tuple[float, ...]  # when
    troubles: tuple[Trouble, ...]
    max_open: int

    @property
    def calm(self) -> bool:
        """Whether honest messages arrive, and within the grace period (specification 1)."""
        hops = 2 if len(self.roles) <= CLOSE else 4  # to whomever the graph of gossip reaches
        spread = self.execution[1] - self.execution[0] + hops * self.link.delay[1]
        quiet = not self.troubles and not self.link.loss and not self.abstains
        busy = len(self.submissions) > 1 or set(self.outsiders) & _MAKE_WORK  # executions wait
        return quiet and spread < GRACE and not busy

    @property
    def troubled_until(self) -> float:
        return max((t.at + t.seconds for t in self.troubles), default=0.0)

    def honest(self, index: int) -> bool:
        return self.roles[index] == "honest"

    @property
    def obedient(self) -> frozenset[str]:
        return frozenset(fixtures.peer(i) for i in range(len(self.roles)) if self.honest(i))


_MAKE_WORK = {"flooder", "bad requester", "nonce grinder", "garbler"}


def draw(
    seed: int,
    members: int,
    faulty: int,
    among: Sequence[str] = MEMBERS,
    outside: Sequence[str] = OUTSIDERS,
) -> Scenario:
    """Return the scenario of a seed with `members` in the roster, `faulty` of them.

    The faulty play roles `among` those given, and up to two peers `outside` of the roster.
    """
    dice = random.Random(seed)
    roles = ["honest"] * (members - faulty) + [dice.choice(among) for _ in range(faulty)]
    dice.shuffle(roles)
    outsiders = tuple(
        dice.choice(outside) for _ in range(dice.choice((0, 0, 1, 2)) if outside else 0)
    )
    calm = dice.random() < 0.3
    low = dice.uniform(1.0, 4.0)
    link = _link(dice, calm, members)
    spread = min(1.2, GRACE - 0.1 - 2 * link.delay[1]) if calm else dice.uniform(0.5, 12.0)
    return Scenario(
        seed,
        _network(dice, roles),
        tuple(roles),
        outsiders,
        link,
        tuple(dice.choice((0.0, 1.0)) * dice.uniform(-59.0, 59.0) for _ in roles),
        (low, low + spread),
        0.0 if calm else dice.choice((0.0, 0.0, 0.1)),
        dice.choice((5.0, 12.0, 20.0)) if members < 12 else 25.0,
        tuple(dice.uniform(0.5, 6.0) for _ in range(1 if calm else dice.choice((1, 1, 2)))),
        () if calm else tuple(_trouble(dice, members) for _ in range(dice.randint(0, 5))),
        dice.choice((3, 1000)) if not calm else 1000,
    )


def _network(dice: random.Random, roles: Sequence[str]) -> Network:
    document: dict[str, Any] = fixtures.network_document(
        len(roles),
        committee_size=dice.choice((1, 2, 3, 3, 4, 5)),
        committee_max=dice.choice((5, 7, 7, 9)),
        attempt_seconds=ATTEMPT,
        commit_grace_seconds=GRACE,
    )
    document["classes"][OTHER_CLASS] = {"device": "cuda", "torch": "2.13.0"}
    shared = dice.random() < 0.3  # members of one operator
    for index, role in enumerate(roles):
        line = document["roster"][index]
        if role == "wrong class":
            line["class"] = OTHER_CLASS
        if role == "intruder" or (shared and dice.random() < 0.3):
            line["operator"] = MANY
    if "intruder" in roles and sum(m["operator"] == MANY for m in document["roster"]) == 1:
        twin = next(i for i, role in enumerate(roles) if role not in ("intruder", "wrong class"))
        document["roster"][twin]["operator"] = MANY  # or there would be no rule for it to break
    return Network.parse(canonical(document))


def _link(dice: random.Random, calm: bool, members: int) -> Link:
    if calm:
        delay = (0.005, dice.choice((0.2, 0.8)) if members <= CLOSE else 0.15)
    else:
        delay = (0.005, dice.choice((0.05, 0.2, 0.8, 3.0)))
    loss = 0.0 if calm else dice.choice((0.0, 0.1, 0.2, 0.3))
    return Link(delay, loss=loss, duplication=0.1, reordering=0.2)


def _trouble(dice: random.Random, members: int) -> Trouble:
    kind = dice.choice(("crash", "crash", "crash", "crash", "partition", "full", "broken"))
    at, seconds = dice.uniform(0.0, 25.0), dice.uniform(0.2, 20.0)
    if kind == "partition":
        who = tuple(sorted(dice.sample(range(members), members // 2)))
        return Trouble(kind, at, 3 * seconds, who)
    boundary = dice.choice((0, dice.randint(1, 4), dice.randint(1, 4), dice.randint(1, 60)))
    only = "" if boundary > 4 else dice.choice(BOUNDARIES)
    return Trouble(kind, at, seconds, (dice.randrange(members),), boundary, only)


def size(seed: int, members: tuple[int, int], faulty: int | None) -> tuple[int, int]:
    """Members and faulty members of a seed's history; most networks are small.

    `faulty` None: any number that leaves the honest a majority, and now and then more.
    """
    dice = random.Random(seed ^ 0x5EED)
    low, high = members
    count = low + int((high - low + 1) * dice.random() ** 2.5)
    if faulty is not None:
        return count, min(faulty, count - 1)
    most = count - 1 if dice.random() < 0.1 else (count - 1) // 2
    return count, dice.randint(0, most)
