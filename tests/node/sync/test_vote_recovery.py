"""When a member votes after its start (specification 6.12)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from node.consensus.coordinator import Coordinator, Step, Voting
from node.storage.database import open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.vote_recovery import KeyInUse, VoteRecovery
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.simulation import virtual_loop
from tests.simulation.network import SimulatedNetwork
from tests.support import fixtures


@dataclass
class Bench:
    """A member's recovery; `steps` counts what it carried out."""

    coordinator: Coordinator
    recovery: VoteRecovery = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.recovery = VoteRecovery(self.coordinator, self.act)

    def act(self, step: Step) -> None:
        step()
        self.steps += 1

    def is_(self, voting: Voting) -> bool:
        return self.coordinator.voting is voting


def network(operators: Sequence[str]) -> Network:
    document = fixtures.network_document(len(operators))
    for line, operator in zip(document["roster"], operators, strict=True):
        line["operator"] = operator
    return Network.parse(canonical(document))


def bench(operators: str, index: int = 0) -> Bench:
    """Return the recovery of member `index`; each letter is the operator of a member.

    Must be called in a virtual loop.
    """
    net = network([f"operator-{letter}" for letter in operators])
    database = open_database(":memory:", net.id)
    clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
    journal, ledger = Journal(database), Ledger(database)
    return Bench(Coordinator(net, fixtures.key(index), journal, ledger, clock, bytes))


@pytest.mark.parametrize(
    ("operators", "feeds", "enough"),
    [
        ("abcd", [1], False),
        ("abcd", [1, 2], True),
        ("abcde", [1, 2], False),
        ("abcde", [1, 2, 3], True),
        ("ab", [], False),
        ("ab", [1], True),
        ("abbbc", [1, 2, 3], False),  # one operator counts once
        ("abbbc", [1, 4], True),
        ("aaabc", [1, 2, 3], False),  # its own others do not count
        ("aaabc", [3, 4], True),
        ("abcd", [1, 1, 1], False),
        ("abcd", [1, 1000], False),  # a stranger
    ],
)
def test_votes_are_allowed_by_a_majority_of_the_other_operators(
    operators: str, feeds: list[int], enough: bool
) -> None:
    async def main() -> None:
        member = bench(operators)
        running = asyncio.create_task(member.recovery.run())
        await asyncio.sleep(1)
        assert member.is_(Voting.HELD)
        for index in feeds:
            member.recovery.feed_ended(fixtures.peer(index))
        await asyncio.sleep(1)
        assert member.is_(Voting.ALLOWED if enough else Voting.HELD)
        assert (member.recovery.reason() is None) is enough
        assert member.steps == enough
        running.cancel()

    virtual_loop.run(main)


@pytest.mark.parametrize(("operators", "index"), [("aaa", 0), ("a", 0), ("abc", 1000)])
def test_nobody_to_ask_or_nothing_to_vote_for_holds_nothing(operators: str, index: int) -> None:
    async def main() -> None:
        node = bench(operators, index)
        await node.recovery.run()
        assert node.is_(Voting.ALLOWED)
        assert node.recovery.reason() is None

    virtual_loop.run(main)


def test_reason_says_how_many_operators_are_missing() -> None:
    async def main() -> None:
        member = bench("abcd")
        member.recovery.feed_ended(fixtures.peer(3))
        assert member.recovery.reason() == (
            "this node does not vote yet: it looks for votes that it signed earlier, and has read"
            " the feeds of 1 of 3 other operators; it needs 2"
        )

    virtual_loop.run(main)


def test_without_answers_new_tasks_are_taken_first_and_all_tasks_after_the_longest_deadline() -> (
    None
):
    async def main() -> None:
        member = bench("abcd")
        parameters = member.coordinator.network.parameters
        running = asyncio.create_task(member.recovery.run())
        # A task that a requester with a slow clock creates now is new here from then on.
        await asyncio.sleep(2 * parameters.clock_skew_seconds - 1)
        assert member.recovery.reason() is not None
        await asyncio.sleep(2)
        assert member.recovery.reason() is None
        assert member.is_(Voting.HELD), "older tasks still wait"
        with capture_logs() as entries:
            await asyncio.sleep(parameters.max_deadline_seconds)
        assert [e["event"] for e in entries if e["log_level"] == "warning"] == [
            "votes allowed without the feeds of a majority"
        ]
        assert member.is_(Voting.ALLOWED)
        await running

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("operators", "tellers", "believed"),
    [
        ("abcd", [1], False),  # it may lie
        ("abcd", [1, 2], True),
        ("abbd", [1, 2], False),  # one operator
        ("ab", [1], True),  # there is nobody else
        ("abcd", [1, 1000], False),
        ("aacd", [1, 2], True),
        ("aab", [2], True),  # the only other operator
        ("aab", [1], False),
    ],
)
def test_key_that_is_in_use_at_the_start_ends_the_node(
    operators: str, tellers: list[int], believed: bool
) -> None:
    async def main() -> None:
        member = bench(operators)
        running = asyncio.create_task(member.recovery.run())
        member.recovery.set_duplicates(frozenset(map(fixtures.peer, tellers)))
        await asyncio.sleep(1)
        assert running.done() is believed
        if not believed:
            running.cancel()
            return
        with pytest.raises(
            KeyInUse, match=r"another process uses this node's key, say .* Stop the"
        ):
            await running
        assert member.is_(Voting.HELD)

    virtual_loop.run(main)


def test_key_that_is_in_use_later_stops_the_votes() -> None:
    async def main() -> None:
        member = bench("abcd")
        running = asyncio.create_task(member.recovery.run())
        for index in (1, 2):
            member.recovery.feed_ended(fixtures.peer(index))
        await running
        with capture_logs() as entries:
            for tellers in ([1], [], [2]):
                member.recovery.set_duplicates(frozenset(map(fixtures.peer, tellers)))
            assert member.is_(Voting.ALLOWED)
            member.recovery.set_duplicates(frozenset(map(fixtures.peer, [2, 3])))
        assert [entry["log_level"] for entry in entries] == ["critical"]
        assert member.is_(Voting.STOPPED)
        member.recovery.set_duplicates(frozenset())
        assert member.is_(Voting.STOPPED), "until a restart"
        assert "another process signs with its key" in str(member.recovery.reason())

    virtual_loop.run(main)


def test_member_that_cannot_reach_anyone_says_in_hello_why_it_does_not_vote() -> None:
    async def main() -> None:
        world = SimulatedNetwork(1, fixtures.network(4))
        await world.populate(["honest", "absent", "absent", "absent"])
        (node,) = world.nodes
        assert node.node is not None
        status = node.node._status()
        assert not any(status.models.values())
        assert "has read the feeds of 0 of 3 other operators" in status.reasons[0]
        await world.stop_all()

    virtual_loop.run(main)


def test_network_that_starts_at_once_does_not_wait_for_itself() -> None:
    async def main() -> None:
        world = SimulatedNetwork(1, fixtures.network(4))
        await world.populate()
        await asyncio.sleep(2)
        for node in world.nodes:
            assert node.coordinator is not None
            assert node.coordinator.voting is Voting.ALLOWED
        await world.stop_all()

    virtual_loop.run(main)
