"""A history on a timeline: members, adversaries, weather and faults, all from one scenario."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from node.daemon import topics
from node.sync.feed_sync import BATCH, Batch
from protocol.consensus import certificate
from protocol.consensus.certificate import Certificate
from protocol.wire import messages
from protocol.wire.messages import Task
from protocol.wire.signing import sign
from tests.simulation import invariants
from tests.simulation.agents import Agent
from tests.simulation.ether import Ether
from tests.simulation.faults import Blank
from tests.simulation.member import Member
from tests.simulation.report import Report, Violation, told
from tests.simulation.roles import AGENTS
from tests.simulation.scenario import DEADLINE, LABELS, Scenario, Trouble
from tests.simulation.timeline import Timeline
from tests.support import fixtures

REQUESTER = 1000
OUTSIDE = 1001  # the first peer outside the roster that is no requester of ours
CHECK = 10.0  # seconds between looks at what must hold all the time
LONGEST = DEADLINE + 180.0  # skewed clocks, and a database that fails at the last moment


class Arena:
    """Everything there is in one history. It is the agents' `Ground`."""

    def __init__(self, scenario: Scenario, report: Report, note: Callable[[str], None] | None):
        self.scenario, self.network, self.report = scenario, scenario.network, report
        self.random = random.Random(f"arena {scenario.seed}")
        self.timeline = Timeline()
        self.topics = topics(self.network.id)
        self.obedient = scenario.obedient
        self.ether = Ether(self.timeline, self.random, scenario.link)
        self.members: list[Member] = []
        self.agents: dict[str, Agent] = {}
        self.submitted: list[Task] = []
        self.signatures = invariants.Signatures(set())
        self.blank = Blank(self.network.id)
        self.proven: dict[str, Any] = {}  # certificates and evidence that were checked, by text
        self._disturbed = 0.0  # when something went wrong last, or was well again
        self._note = note
        self._populate()

    @property
    def honest(self) -> list[Member]:
        return [m for m in self.members if self.scenario.honest(m.index)]

    @property
    def bans(self) -> list[tuple[str, str]]:
        return self.ether.bans

    # Life

    def play(self) -> None:
        """Let it all happen; raise Violation for what must not."""
        for member in self.members:
            member.start()
        for agent in self.agents.values():
            agent.begin()
        for number, at in enumerate(self.scenario.submissions):
            self.timeline.at(at, self._submit, number)
        for trouble in self.scenario.troubles:
            self.timeline.at(trouble.at, self._trouble, trouble)
        self._live()
        for agent in self.agents.values():  # what a requester would see that asks them
            for task in self.submitted:
                invariants.believed(self, agent.shows(task.id))
        invariants.check_end(self)

    def _live(self) -> None:
        """Run until all has ended and since then no feed had anything new for anyone."""
        tips: list[int] | None = None
        least = max((*self.scenario.submissions, self.scenario.troubled_until, 20.0))
        period = max(CHECK, self.scenario.feed_seconds + 5.0)
        while self.timeline.now < LONGEST:
            self.timeline.run(self.timeline.now + period)
            invariants.check_now(self)
            with self.looking():
                # Who had no place left may only now read on: it has from one look to the next.
                before, tips = tips, self._tips() if self._over() else None
                quiet = max(least, self._disturbed + period)
                if self.timeline.now > quiet and tips is not None and before == tips:
                    return

    def _tips(self) -> list[int]:
        return [m.journal.tip() for m in self.honest]

    def _over(self) -> bool:
        return all(m.up and not m.journal.open_tasks() for m in self.honest)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let the databases be read from outside, whatever is wrong with their disks."""
        disks = [(member, member.disk) for member in self.members]
        for member in self.members:
            member.disk = None
        yield
        for member, disk in disks:
            member.disk = disk

    def _populate(self) -> None:
        scenario = self.scenario
        for index, role in enumerate(scenario.roles):
            if role in AGENTS:
                self._settle(role, index)
            else:
                member = Member(self, index, LABELS[role], scenario.skews[index])
                self.members.append(member)
                self.ether.settle(member.peer, member)
            if role != "honest":
                self.report.adversaries[role] += 1
        for number, role in enumerate(scenario.outsiders):
            self._settle(role, OUTSIDE + number)
            self.report.adversaries[f"{role} outside"] += 1
        self.signatures = invariants.Signatures({m.peer for m in self.honest})
        self._connect()

    def _settle(self, role: str, index: int) -> None:
        agent = AGENTS[role](self, index)
        self.agents[agent.peer] = agent
        self.ether.settle(agent.peer, agent)

    def _connect(self) -> None:
        """Join the honest in a ring, so that no faulty peer is needed, and add chords."""
        ring = [m.peer for m in self.honest]
        self.random.shuffle(ring)
        for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
            self.ether.link(one, other)
        peers = list(self.ether.places)
        for peer in peers:
            for other in self.random.sample(peers, min(len(peers), 2 if len(peers) > 8 else 3)):
                self.ether.link(peer, other)

    # What happens

    def _submit(self, number: int) -> None:
        prompt = self.random.choice(("song", "song", "song", "fail"))
        body = _body(self, number, prompt)
        task = fixtures.task_of(self.network, sign(body, fixtures.key(REQUESTER)).document())
        self.submitted.append(task)
        self.note("requester", f"submits {task.id[:8]}")
        self._hand_over(task, 2)

    def _hand_over(self, task: Task, copies: int) -> None:
        """Give a task to nodes that are up; try again later if none takes it."""
        up = [m for m in self.honest if m.up]
        payload = task.envelope.encode()
        asked = self.random.sample(up, min(copies, len(up)))
        taken = [m.submitted(payload) for m in asked]
        if not any(taken):
            self.timeline.after(2.0, self._hand_over, task, copies)

    def _trouble(self, trouble: Trouble) -> None:
        self.report.faults[trouble.kind] += 1
        if trouble.kind == "partition":
            self.note("weather", f"cuts off {list(trouble.who)} for {trouble.seconds:.1f} s")
            self.ether.partition([fixtures.peer(i) for i in trouble.who])
            self.timeline.after(trouble.seconds, self._heal)
            return
        member = next((m for m in self.members if m.index == trouble.who[0]), None)
        if member is None:  # an agent: nobody's concern
            return
        if trouble.kind != "crash":
            self.note(member, f"has a {trouble.kind} disk for {trouble.seconds:.1f} s")
            member.disk = trouble.kind
            self.timeline.after(trouble.seconds, setattr, member, "disk", None)
        elif trouble.boundary:
            member.boundaries.fuse, member.boundaries.only = trouble.boundary, trouble.only
            self.timeline.after(trouble.seconds + 40.0, setattr, member.boundaries, "fuse", None)
        elif member.up:
            self.fell(member, "at rest")

    def _heal(self) -> None:
        self.ether.partition(())
        self._disturbed = self.timeline.now

    # What members tell

    def fell(self, member: Member, where: str) -> None:
        """A member died; it comes back later."""
        self.note(member, f"crashes {where}")
        self.report.faults[f"crash {where}"] += 1
        member.down()
        invariants.check_kept(self, member)
        self.timeline.after(self.random.uniform(0.1, 15.0), self._revive, member)

    def _revive(self, member: Member) -> None:
        self.note(member, "starts again")
        self._disturbed = self.timeline.now
        member.start()
        if member.up:
            invariants.check_kept(self, member)

    def store_failed(self, member: Member, error: sqlite3.Error) -> None:
        self.note(member, f"store: {error}")
        self._disturbed = self.timeline.now
        self.report.faults["store error"] += 1

    def sent(self, member: Member, payload: bytes) -> None:
        self.signatures.see(payload)
        if not member.keeps(payload):
            raise Violation("I5", f"{member.index} sends what is not in its journal")
        if self._note is not None:
            self.note(member, "sends " + told(payload))

    def changed(self, member: Member, task: str) -> None:
        if self._note is not None:
            with self.looking():
                state, attempt = member.journal.state(task) or ("unknown", 0)
                count = len(member.certificates(task))
            self.note(member, f"{task[:8]} is {state} in {attempt}, certificates: {count}")

    def page(self, asker: str, peer: str, feed: str, cursor: int) -> Batch:
        """Carry a feed request. Raises ConnectionError."""
        if not self.ether.connected(asker, peer):
            raise ConnectionError(f"{peer} cannot be reached")
        agent = self.agents.get(peer)
        if agent is not None:
            return agent.page(feed, cursor)
        member = self.ether.places[peer].peer
        assert isinstance(member, Member)
        if member.disk == "broken":
            raise ConnectionError(f"{peer} answers that its store failed")
        return member.page(feed, cursor, BATCH)

    def shown(self, asker: str, peer: str, task: str) -> tuple[Certificate, ...]:
        """Carry a request for a task. Raises ConnectionError."""
        if not self.ether.connected(asker, peer):
            raise ConnectionError(f"{peer} cannot be reached")
        agent = self.agents.get(peer)
        if agent is not None:
            return invariants.believed(self, agent.shows(task))
        member = self.ether.places[peer].peer
        assert isinstance(member, Member)
        if member.disk == "broken":
            raise ConnectionError(f"{peer} answers that its store failed")
        found = tuple(certificate.verify(shown, self.network) for shown in member.shown(task))
        if any(one.task.id != task for one in found):
            raise Violation("I2", f"{member.index} shows a certificate of another task")
        return found

    def note(self, who: object, what: str) -> None:
        """Write a line of the trace, if there is one."""
        if self._note is not None:
            name = f"{who.index}" if isinstance(who, Member | Agent) else str(who)
            self._note(f"{self.timeline.now:9.3f}  {name:>9}  {what}")

    # Ground of the agents

    def now(self) -> float:
        return fixtures.START + self.timeline.now

    def later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        self.timeline.after(seconds, call, *args)

    def neighbours(self, peer: str) -> list[str]:
        return list(self.ether.places[peer].neighbours)

    def say(self, peer: str, topic: str, payload: bytes, to: Sequence[str] | None = None) -> None:
        if self._note is not None:
            self.note(self.agents[peer], "says " + told(payload))
        self.ether.publish(peer, topic, payload, to)


def play(scenario: Scenario, note: Callable[[str], None] | None = None) -> Report:
    """Live through one scenario and check every invariant. Raises Violation."""
    report = Report()
    report.members[len(scenario.roles)] += 1
    arena = Arena(scenario, report, note)
    try:
        arena.play()
    except Violation:
        raise
    except Exception as fault:
        raise Violation("no fault of ours", repr(fault)) from fault
    report.messages = arena.ether.carried
    return report


def _body(arena: Arena, number: int, prompt: str) -> dict[str, Any]:
    created = int(arena.now() * 1000)
    nonce = f"{arena.random.getrandbits(128):032x}"
    args = fixtures.args(seed=number, prompt=prompt)
    net = arena.network.id
    kind = "text-to-music"
    return dict(messages.task_body(net, kind, args, fixtures.CLASS, created, DEADLINE, nonce))
