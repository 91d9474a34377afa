import asyncio
import io
from collections.abc import Callable
from typing import Any, cast

import pytest

from node.cli.progress import follow, progress_display, report_connection_loss
from node.client.client import Client
from node.client.submission import Submission
from node.sync.task_tracker import NodeStatus
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire.messages import Task
from tests.node.cli.certified import Certified
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


def _display_members(certified: Certified, stream: io.StringIO, statuses: list[NodeStatus]) -> str:
    return _display(certified.network, certified.certificate.task, stream, statuses)


def _display(
    network: Network, task: Task | None, stream: io.StringIO, statuses: list[NodeStatus]
) -> str:
    with progress_display(network, cast("Submission", _Submission(task)), stream) as display:
        for status in statuses:
            display.show(status)
        display.line("by the way")
    return stream.getvalue()


def _members(certified: Certified) -> tuple[str, str]:
    """Return a member of the first committee, and a peer outside it."""
    committee = committees(certified.network, certified.certificate.task)[0]
    return committee[0], next(p for p in certified.network.roster if p not in committee)


def test_plain_lines_are_printed_on_change_only(certified: Certified) -> None:
    member, outsider = _members(certified)
    statuses = [
        NodeStatus(member, State.EXECUTING, 0, share) for share in (0.0, 0.01, 0.11, 0.12, 0.55)
    ]
    statuses += [NodeStatus(member, State.COMMITTED, 0, 0.0)] * 2
    statuses += [NodeStatus(outsider, State.WAITING, 0, 0.0)]
    *lines, last = _display_members(certified, io.StringIO(), statuses).splitlines()
    assert last == "by the way"
    assert [line.split("attempt 0  ")[1] for line in lines] == [
        *("executing 0%", "executing 10%", "executing 50%", "committed", "looking on")
    ]


def test_a_terminal_shows_one_updating_table(certified: Certified) -> None:
    member, outsider = _members(certified)
    statuses = [
        NodeStatus(member, State.EXECUTING, 0, 0.5),
        NodeStatus(outsider, State.WAITING, 0, 0.0),
    ]
    output = _display_members(certified, _Terminal(), statuses)
    assert "executing  50%" in output
    assert "looking on" in output
    assert output.count("by the way") == 1


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
def test_progress_is_in_seconds_if_the_model_has_a_frame_rate(
    config: Any, plain: str, table: str
) -> None:
    document = fixtures.network_document()
    document["models"][0]["limits"] |= {"frame_rate": 50, "delay": 3}
    network = Network.of(document)
    task = fixtures.task(network, generation_config=config)
    statuses = [NodeStatus(committees(network, task)[0][0], State.EXECUTING, 0, 0.55)]
    line, _ = _display(network, task, io.StringIO(), statuses).splitlines()
    assert line.endswith(f"attempt 0  executing {plain}")
    assert table in _display(network, task, _Terminal(), statuses)


def test_progress_of_an_unknown_task_is_a_percentage(certified: Certified) -> None:
    statuses = [NodeStatus(_members(certified)[0], State.EXECUTING, 0, 0.55)]
    line, _ = _display(certified.network, None, io.StringIO(), statuses).splitlines()
    assert line.endswith("executing 50%")


class _Ended(Exception):
    """The scripted peers are used up."""


def test_a_lost_and_a_new_connection_are_reported_once() -> None:
    connected = iter(["a", "ab", "", "", "", "b", "", "a", "a"])
    lines: list[str] = []

    def peers() -> str:
        now = next(connected, None)
        if now is None:
            raise _Ended
        return now

    async def watching() -> None:
        await report_connection_loss(peers, lines.append)

    with pytest.raises(_Ended):
        virtual_loop.run(watching)
    assert lines == ["no node is connected, trying again", "connected again"] * 2


def test_the_loss_of_the_only_node_is_display_members(capsys: pytest.CaptureFixture[str]) -> None:
    node = Fake()

    async def test(client: Client) -> None:
        waiting = asyncio.create_task(follow(client.follow(TASK.id), client))
        await _until(lambda: "watch" in node.asked)
        medium = client.transport._network  # type: ignore[attr-defined]
        medium.partition([client.transport.peer])
        await _until(lambda: not client.transport.peers())
        await asyncio.sleep(3)
        medium.partition()
        await _until(lambda: bool(client.transport.peers()))
        await asyncio.sleep(1)  # the display looks twice a second
        node.say(**truth_of({"error": "non-finite-output"}))
        await waiting

    with_client(node, test=test)
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("no node is connected, trying again") == 1
    assert lines.count("connected again") == 1


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most a minute of virtual time."""
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the condition never became true")
