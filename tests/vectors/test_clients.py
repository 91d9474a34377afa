"""The vectors of clients and of clocks against the product (specification 6.10, 6.11)."""

import json
from typing import Any

import pytest

from node.sync.handshakes import Handshakes
from node.sync.task_tracker import LATE_VOTE_SECONDS, TaskTracker
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Task
from tests.support.clock import ManualClock
from tests.vectors.test_vectors import stored

CLIENTS, CLOCKS = stored("clients.json"), stored("clocks.json")


class NobodyConnected:
    """A transport without peers: the votes come from the entry."""

    def peers(self) -> frozenset[str]:
        return frozenset()


class Player:
    """A client's tracker, and a clock that the entry moves."""

    def __init__(self, entry: dict[str, Any]) -> None:
        net = Network.of(CLIENTS["networks"][entry["network"]])
        task = codec.decode(entry["task"].encode(), net.id)
        assert isinstance(task, Task)
        self.start, self.clock = task.created / 1000, ManualClock()
        self.clock.time = self.start + entry["seen"]
        self.tracker = TaskTracker(net, NobodyConnected(), self.clock, task.id, task)  # type: ignore[arg-type]

    def play(self, event: dict[str, Any]) -> None:
        self.clock.time = self.start + event["at"]
        match event:
            case {"received": text}:
                assert self.tracker._add_envelope("node", json.loads(text))
            case {"certificate": text}:
                self.tracker._add_certificate("node", json.loads(text))
            case {"said": state}:
                self.tracker._states["node"] = State(state)

    def state(self, at: float) -> str:
        self.clock.time = self.start + at
        if (settled := self.tracker.settled) is not None:
            return "agreed-error" if "error" in settled.outcome else "agreed"
        return str(self.tracker._failed_state() or "open")


@pytest.mark.parametrize("entry", CLIENTS["clients"], ids=lambda entry: entry["name"])
def test_a_client_believes_what_the_text_says(entry: dict[str, Any]) -> None:
    player, events = Player(entry), list(entry["events"])
    states = []
    for time in entry["times"]:
        while events and events[0]["at"] <= time:
            player.play(events.pop(0))
        states.append({"at": time, "state": player.state(time)})
    assert states == entry["states"]
    assert not events


@pytest.mark.parametrize("entry", CLOCKS["clocks"], ids=lambda entry: entry["name"])
def test_a_node_judges_its_clock_as_the_text_says(entry: dict[str, Any]) -> None:
    net = Network.of(CLOCKS["network"])
    handshakes = Handshakes(None, net, None, dict)  # type: ignore[arg-type]
    for answer in entry["answers"]:
        if (member := net.roster.get(answer["peer"])) is not None:
            handshakes._clocks.add(member.peer, member.operator, answer["seconds"])
    assert handshakes._clocks.offset() == entry["difference"]
    assert (handshakes.clock_fault() is None) is entry["ready"]


def test_the_clients_wait_for_last_votes_is_that_of_the_product() -> None:
    assert {entry["wait"] for entry in CLIENTS["clients"]} == {LATE_VOTE_SECONDS}
