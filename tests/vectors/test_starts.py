"""The vectors of members that start against the product (specification 6.12)."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest

from node.consensus.coordinator import Coordinator, Step, Voting
from node.storage.database import open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.vote_recovery import KeyInUse, VoteRecovery
from protocol.consensus.committee import committees
from protocol.consensus.effects import Effect, Publish
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Abstain, Abstention, Task
from tests.simulation import virtual_loop
from tests.support import fixtures
from tests.support.clock import ManualClock
from tests.vectors.test_vectors import stored

VECTORS = stored("starts.json")
STATES = {Voting.HELD: "held", Voting.ALLOWED: "voting", Voting.STOPPED: "stopped"}


class Player:
    """The coordinator and the recovery of a member, on a virtual loop that starts with them."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.net = Network.of(VECTORS["networks"][entry["network"]])
        self.me = entry["me"]
        clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), entry["start"] / 1000)
        self.database = open_database(":memory:", self.net.id)
        self.coordinator = Coordinator(
            self.net,
            fixtures.key_of(self.me),
            Journal(self.database),
            Ledger(self.database),
            clock,
            bytes,
        )
        self.recovery = VoteRecovery(self.coordinator, self.act)
        self.running = asyncio.create_task(self.recovery.run())
        self.nonces = itertools.count()

    def act(self, step: Step) -> None:
        step()

    def play(self, event: dict[str, Any]) -> None:
        match event:
            case {"feed_end": peer}:
                self.recovery.feed_ended(peer)
            case {"duplicates": peers}:
                self.recovery.set_duplicates(frozenset(peers))
            case {"own_vote": created}:
                task = self.accept(created)
                self.coordinator.receive(fixtures.commit(self.net, task, self.me))

    def accept(self, created: int) -> Task:
        """Accept a task in whose first committee the member is."""
        deadline = self.net.parameters.max_deadline_seconds
        for nonce in self.nonces:
            task = fixtures.task(self.net, now=created / 1000, deadline=deadline, nonce=nonce)
            if self.me in committees(self.net, task)[0]:
                break
        assert task.created == created
        self.coordinator.receive(task)
        return task

    def state(self, created: int) -> dict[str, Any]:
        if self.running.done() and self.running.exception() is not None:
            assert isinstance(self.running.exception(), KeyInUse)
            return {"state": "ended", "signs": False}
        state = STATES[self.coordinator.voting]
        return {"state": state, "signs": self.signs_on(self.accept(created))}

    def signs_on(self, task: Task) -> bool:
        effects = self.coordinator.failed(task.id, Abstention.BUSY)
        messages = [effect.message for effect in effects if isinstance(effect, Publish)]
        return any(isinstance(message, Abstain) for message in messages)


async def wait(until: float) -> None:
    """Let everything happen that is due until a time, in seconds after the start."""
    await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))
    for _ in range(10):  # the recovery takes some turns of the loop to act
        await asyncio.sleep(0)


@pytest.mark.parametrize("entry", VECTORS["starts"], ids=lambda entry: entry["name"])
def test_a_member_votes_after_its_start_as_the_text_says(entry: dict[str, Any]) -> None:
    async def main() -> None:
        player, events, states = Player(entry), list(entry["events"]), []
        for question in entry["asked"]:
            while events and events[0]["at"] <= question["at"]:
                await wait(events[0]["at"])
                player.play(events.pop(0))
            await wait(question["at"])
            states.append(player.state(question["created"]))
        assert states == entry["states"]
        assert not events
        player.running.cancel()
        player.database.connection.close()

    virtual_loop.run(main)


class Holder:
    """The coordinator of a member that holds its votes, with one task."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.net = Network.of(VECTORS["networks"][entry["network"]])
        self.database = open_database(":memory:", self.net.id)
        self.clock, journal = ManualClock(), Journal(self.database)
        key = fixtures.key_of(entry["me"])
        ledger = Ledger(self.database)
        self.coordinator = Coordinator(self.net, key, journal, ledger, self.clock, bytes)
        self.sent: list[dict[str, Any]] = []
        self.coordinator.hold_votes()
        self.task = fixtures.task_of(self.net, json.loads(entry["task"]))
        self.note(self.coordinator.receive(self.task))
        with journal.transaction():
            for attempt, salt in enumerate(entry["salts"]):
                journal.put_salt(self.task.id, attempt, salt)

    def note(self, effects: Sequence[Effect]) -> None:
        for vote in (effect.message for effect in effects if isinstance(effect, Publish)):
            body: Any = vote.envelope.body
            members = {name: body[name] for name in ("commits", "reason") if name in body}
            at = self.clock.time - fixtures.START
            sent = {"at": at, "type": body["type"], "attempt": body["attempt"], **members}
            self.sent.append(sent)

    def play(self, event: dict[str, Any]) -> None:
        self.wait(event["at"])
        match event:
            case {"received": text}:
                message = codec.decode(text.encode(), self.net.id)
                self.note(self.coordinator.receive(message))
            case {"executed": outcome}:
                self.note(self.coordinator.executed(self.task.id, outcome, {"seconds": 1}))
            case {"failed": reason}:
                self.note(self.coordinator.failed(self.task.id, Abstention(reason)))
            case {"released": True}:
                self.note(self.coordinator.allow_votes())

    def wait(self, until: float) -> None:
        """Let everything happen that is due until a time, one time after the other."""
        while (due := self.coordinator.wake_at()) is not None and due <= fixtures.START + until:
            self.clock.time = max(self.clock.time, due)
            self.note(self.coordinator.tick())
        self.clock.time = fixtures.START + until


@pytest.mark.parametrize("entry", VECTORS["releases"], ids=lambda entry: entry["name"])
def test_a_member_signs_what_is_due_when_its_votes_are_released(entry: dict[str, Any]) -> None:
    player = Holder(entry)
    release = {"at": entry["released"], "released": True}
    for event in sorted([release, *entry["events"]], key=lambda event: event["at"]):
        player.play(event)
    player.wait(1000)
    assert player.sent == entry["sent"]
    player.database.connection.close()
