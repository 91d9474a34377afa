"""The progress of a task while a command waits: one updating table, or plain lines."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from node.cli.options import display_name
from node.client.client import Client
from node.client.submission import Submission
from node.sync.task_tracker import NodeStatus
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network

ShowStatus = Callable[[NodeStatus], None]
ShowLine = Callable[[str], None]

# The share of an execution after which plain output has another line.
PLAIN_STEP = 0.1
# Characters of the bar: a row with seconds then fits into 80 columns.
BAR_WIDTH = 10
# Seconds between checks for a connected node.
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ProgressDisplay:
    """Shows node statuses, and lines that belong to no single node."""

    show: ShowStatus
    line: ShowLine


async def follow(submission: Submission, client: Client) -> None:
    """Show what the nodes report, on standard error, until the task has ended."""
    with progress_display(client.network, submission, sys.stderr) as display:
        # Watching the task goes on silently while no node is connected, so say that it waits.
        connections = asyncio.create_task(
            report_connection_loss(client.transport.peers, display.line)
        )
        try:
            async for status in submission.tracker.watch():
                display.show(status)
        finally:
            connections.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connections


async def report_connection_loss(peers: Callable[[], Collection[str]], line: ShowLine) -> None:
    """Show a line when the last connection is lost, and when there is one again; never returns."""
    connected = True
    while True:
        if bool(peers()) is not connected:
            connected = not connected
            line("connected again" if connected else "no node is connected, trying again")
        await asyncio.sleep(POLL_SECONDS)


@contextmanager
def progress_display(
    network: Network, submission: Submission, stream: TextIO
) -> Iterator[ProgressDisplay]:
    """Give the display of a task: one updating table on a terminal, plain lines elsewhere."""
    if not stream.isatty():

        def print_line(line: str) -> None:
            print(line, file=stream, flush=True)

        yield ProgressDisplay(_plain_lines(network, submission, print_line), print_line)
        return
    # Only a terminal needs rich, which is slow to import.
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    latest: dict[str, NodeStatus] = {}

    def table() -> Table:
        grid = Table.grid(padding=(0, 2))
        for peer in sorted(latest, key=lambda p: display_name(p, network)):
            grid.add_row(display_name(peer, network), *_columns(latest[peer], network, submission))
        return grid

    with Live(console=Console(file=stream), refresh_per_second=8) as live:

        def show(status: NodeStatus) -> None:
            latest[status.peer] = status
            live.update(table())

        yield ProgressDisplay(show, live.console.print)


def _columns(status: NodeStatus, network: Network, submission: Submission) -> tuple[str, str, str]:
    attempt = f"attempt {status.attempt}"
    if status.state is not State.EXECUTING:
        return attempt, _state_text(status, network, submission), ""
    filled = round(BAR_WIDTH * status.progress)
    seconds = _seconds_text(status.progress, network, submission)
    text = f"executing {status.progress:4.0%}{seconds}"
    return attempt, text, "█" * filled + "░" * (BAR_WIDTH - filled)


def _seconds_text(progress: float, network: Network, submission: Submission) -> str:
    """Return the generated seconds of audio; "" if the task's length is not known."""
    task = submission.tracker.task
    length = None if task is None else network.audio_seconds(task)
    return "" if length is None else f" ({progress * length:.1f} of {length:.1f} s)"


def _state_text(status: NodeStatus, network: Network, submission: Submission) -> str:
    """Return a node's state. A node in no committee waits too, but has no part: "looking on"."""
    if status.state is State.WAITING and not _in_committee(status, network, submission):
        return "looking on"
    return str(status.state)


def _in_committee(status: NodeStatus, network: Network, submission: Submission) -> bool:
    task = submission.tracker.task
    if task is None:  # no node has shown the task yet
        return True
    attempts = committees(network, task)
    # A faulty node may report an attempt that does not exist.
    return status.peer in attempts[min(status.attempt, len(attempts) - 1)]


def _plain_lines(network: Network, submission: Submission, print_line: ShowLine) -> ShowStatus:
    """Return a function that prints a node's status when its line changes."""
    last: dict[str, str] = {}

    def show(status: NodeStatus) -> None:
        text = _state_text(status, network, submission)
        if status.state is State.EXECUTING:
            # Rounded down to a step, so that the line changes only once per step.
            share = status.progress // PLAIN_STEP * PLAIN_STEP
            text += f" {share:.0%}{_seconds_text(share, network, submission)}"
        line = f"{display_name(status.peer, network)}  attempt {status.attempt}  {text}"
        if last.get(status.peer) != line:
            last[status.peer] = line
            print_line(line)

    return show
