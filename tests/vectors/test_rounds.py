"""The vectors of rounds against the product's agreement (specification 6)."""

from typing import Any

import pytest

from protocol.consensus.effects import Execute, SignAndSend
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Abstention, Task, Withdraw
from tests.protocol.driver import AgreementDriver
from tests.support import fixtures
from tests.vectors.test_vectors import stored

VECTORS = stored("rounds.json")
START = fixtures.START


class Player:
    """Plays one entry, and notes what the node sends, and when attempts and executions start."""

    def __init__(
        self, entry: dict[str, Any], networks: dict[str, Any] = VECTORS["networks"]
    ) -> None:
        self.net = Network.of(networks[entry["network"]])
        task = codec.decode(entry["task"].encode(), self.net.id)
        assert isinstance(task, Task)
        assert task.created == START * 1000
        assert entry["salts"] == [fixtures.salt(entry["me"], attempt) for attempt in range(2)]
        suspects = frozenset(entry["suspects"])
        self.driver = AgreementDriver(self.net, task, entry["me"], START, suspects)
        self.sent: list[dict[str, Any]] = []
        self.attempts: list[float] = [0]
        self.executions: list[float] = []
        self.note(0)

    def play(self, event: dict[str, Any]) -> None:
        at = event["at"]
        self.wait(at)
        match event:
            case {"received": text}:
                message = codec.decode(text.encode(), self.net.id)
                if isinstance(message, Withdraw):
                    effects = self.driver.agreement.withdraw(START + at)
                    assert not any(isinstance(effect, SignAndSend) for effect in effects)
                else:
                    assert not isinstance(message, Task)
                    self.driver.receive(message, now=START + at)
            case {"executed": outcome}:
                self.driver.executed(START + at, outcome)
            case {"failed": reason}:
                effects = self.driver.agreement.failed(Abstention(reason), START + at)
                self.driver.carry_out(effects, START + at)
        self.note(at)

    def wait(self, until: float) -> None:
        """Let everything happen that is due until a time, one time after the other."""
        while (due := self.driver.agreement.wake_at()) is not None and due <= START + until:
            self.driver.advance(due)
            self.note(due - START)

    def note(self, at: float) -> None:
        for vote in self.driver.sent[len(self.sent) :]:
            body: Any = vote.envelope.body
            members = {name: body[name] for name in ("commits", "reason") if name in body}
            sent = {"at": at, "type": body["type"], "attempt": body["attempt"], **members}
            self.sent.append(sent)
        while len(self.attempts) <= self.driver.attempt:
            self.attempts.append(at)
        begun = sum(isinstance(effect, Execute) for effect in self.driver.effects)
        self.executions += [at] * (begun - len(self.executions))

    def state(self, at: float) -> dict[str, Any]:
        reachable = [votes.can_reach_quorum() for votes in self.driver.agreement.vote_sets]
        state, attempt = str(self.driver.state), self.driver.attempt
        return {"at": at, "state": state, "attempt": attempt, "reachable": reachable}


@pytest.mark.parametrize("entry", VECTORS["rounds"], ids=lambda entry: entry["name"])
def test_a_round_goes_as_the_text_says(entry: dict[str, Any]) -> None:
    player, events = Player(entry), list(entry["events"])
    states = []
    for time in entry["times"]:
        while events and events[0]["at"] <= time:
            player.play(events.pop(0))
        player.wait(time)
        states.append(player.state(time))
    for event in events:
        player.play(event)
    player.wait(1000)
    assert states == entry["states"]
    assert player.sent == entry["sent"]
    assert player.attempts == entry["attempts"]
    assert player.executions == entry["executions"]
