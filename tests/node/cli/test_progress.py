import asyncio
import io
from collections.abc import Callable
from typing import Any, cast

import pytest

from node.cli.progress import follow, progress_display, report_connection_loss
from node.client.client import Client, Submission
from node.sync.task_tracker import NodeStatus
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire.messages import Task
from tests.node.cli.certified import Made
from tests.node.client.test_client import TASK, Fake, truth_of, with_client
from tests.simulation import virtual_loop
from tests.support import fixtures


class _Submission:
    """The part of `Submission` that the progress display uses."""

    def __init__(self, task: Task | None) -> None:
        self.tracker: Any = self
        self.task = task


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(made: Made, stream: io.StringIO, sightings: list[NodeStatus]) -> str:
    return _seen(made.network, made.certificate.task, stream, sightings)


def _seen(
    network: Network, task: Task | None, stream: io.StringIO, sightings: list[NodeStatus]
) -> str:
    with progress_display(network, cast("Submission", _Submission(task)), stream) as shown:
        for sighting in sightings:
            shown.show(sighting)
        shown.line("by the way")
    return stream.getvalue()


def _members(made: Made) -> tuple[str, str]:
    """Return one peer in the first committee, and one that is not."""
    committee = committees(made.network, made.certificate.task)[0]
    return committee[0], next(p for p in made.network.roster if p not in committee)


def test_plain_lines_come_on_change_only(made: Made) -> None:
    member, other = _members(made)
    sightings = [
        NodeStatus(member, State.EXECUTING, 0, share) for share in (0.0, 0.01, 0.11, 0.12, 0.55)
    ]
    sightings += [NodeStatus(member, State.COMMITTED, 0, 0.0)] * 2
    sightings += [NodeStatus(other, State.WAITING, 0, 0.0)]
    *lines, last = _shown(made, io.StringIO(), sightings).splitlines()
    assert last == "by the way"
    assert [line.split("attempt 0  ")[1] for line in lines] == [
        *("executing 0%", "executing 10%", "executing 50%", "committed", "looking on")
    ]


def test_a_terminal_gets_one_table(made: Made) -> None:
    member, other = _members(made)
    sightings = [
        NodeStatus(member, State.EXECUTING, 0, 0.5),
        NodeStatus(other, State.WAITING, 0, 0.0),
    ]
    shown = _shown(made, _Terminal(), sightings)
    assert "executing  50%" in shown
    assert "looking on" in shown
    assert shown.count("by the way") == 1


@pytest.mark.parametrize(
    ("config", "plain", "table"),
    [
        ({"max_new_tokens": 503}, "50% (5.0 of 10.0 s)", "executing  55% (5.5 of 10.0 s)"),
        (
            {"max_new_tokens": 503, "num_return_sequences": 2},
            "50% (10.0 of 20.0 s)",
            "executing  55% (11.0 of 20.0 s)",
        ),
        (None, "50%", "executing  55%  "),
    ],
)
def test_progress_is_in_seconds_where_the_network_tells_them(
    config: Any, plain: str, table: str
) -> None:
    document = fixtures.network_document()
    document["models"][0]["limits"] |= {"frame_rate": 50, "delay": 3}
    network = Network.of(document)
    task = fixtures.task(network, generation_config=config)
    sightings = [NodeStatus(committees(network, task)[0][0], State.EXECUTING, 0, 0.55)]
    line, _ = _seen(network, task, io.StringIO(), sightings).splitlines()
    assert line.endswith(f"attempt 0  executing {plain}")
    assert table in _seen(network, task, _Terminal(), sightings)


def test_progress_of_a_task_that_is_not_known_yet_is_a_share(made: Made) -> None:
    sightings = [NodeStatus(_members(made)[0], State.EXECUTING, 0, 0.55)]
    line, _ = _seen(made.network, None, io.StringIO(), sightings).splitlines()
    assert line.endswith("executing 50%")


class _Over(Exception):
    """There is no more to see."""


def test_a_lost_and_a_new_connection_are_said_once() -> None:
    seen = iter(["a", "ab", "", "", "", "b", "", "a", "a"])
    said: list[str] = []

    def peers() -> str:
        now = next(seen, None)
        if now is None:
            raise _Over
        return now

    async def watching() -> None:
        await report_connection_loss(peers, said.append)

    with pytest.raises(_Over):
        virtual_loop.run(watching)
    assert said == ["no node is connected, trying again", "connected again"] * 2


def test_whoever_waits_sees_that_the_only_node_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    node = Fake()

    async def test(client: Client) -> None:
        waiting = asyncio.create_task(follow(client.follow(TASK.id), client))
        await _until(lambda: "watch" in node.asked)
        medium = client.transport._network  # type: ignore[attr-defined]
        medium.partition([client.transport.peer])
        await _until(lambda: not client.transport.peers())
        await asyncio.sleep(3)
        node.say(**truth_of({"error": "non-finite-output"}))
        medium.partition()
        await waiting

    with_client(node, test=test)
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("no node is connected, trying again") == 1
    assert lines.count("connected again") == 1


async def _until(true: Callable[[], bool]) -> None:
    """Wait in virtual time, for a minute of it at most."""
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never became so")
