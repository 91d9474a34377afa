"""A task's progress while it is waited for: one updating table, or plain lines."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from node.cli.options import display_name
from node.client.client import Client, Submission
from node.sync.task_tracker import NodeStatus
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network

Show = Callable[[NodeStatus], None]
Say = Callable[[str], None]
STEP = 0.1  # of an execution: how often a plain line reports it
BAR = 10  # characters, so that a row with seconds fits into 80
POLL = 0.5  # seconds between looks at who is connected


@dataclass(frozen=True, slots=True)
class ProgressDisplay:
    """Shows sightings, and says in a line of its own what concerns no single node."""

    show: Show
    say: Say


async def follow(submission: Submission, client: Client) -> None:
    """Show what the nodes report on standard error until the task has ended."""
    with progress_display(client.network, submission, sys.stderr) as shown:
        watching = asyncio.create_task(report_connection_loss(client.transport.peers, shown.say))
        try:
            async for sighting in submission.tracker.watch():
                shown.show(sighting)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def report_connection_loss(peers: Callable[[], Collection[str]], say: Say) -> None:
    """Say whenever the last connection is lost, and when there is one again; for ever."""
    connected = True
    while True:
        if bool(peers()) is not connected:
            connected = not connected
            say("connected again" if connected else "no node is connected, trying again")
        await asyncio.sleep(POLL)


@contextmanager
def progress_display(
    network: Network, submission: Submission, stream: TextIO
) -> Iterator[ProgressDisplay]:
    """Give the view of a task: one updating table on a terminal, plain lines elsewhere."""
    if not stream.isatty():

        def say(line: str) -> None:
            print(line, file=stream, flush=True)

        yield ProgressDisplay(_plain(network, submission, say), say)
        return
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

        def show(sighting: NodeStatus) -> None:
            latest[sighting.peer] = sighting
            live.update(table())

        yield ProgressDisplay(show, live.console.print)


def _columns(
    sighting: NodeStatus, network: Network, submission: Submission
) -> tuple[str, str, str]:
    attempt = f"attempt {sighting.attempt}"
    if sighting.state is not State.EXECUTING:
        return attempt, _word(sighting, network, submission), ""
    filled = round(BAR * sighting.progress)
    heard = _heard(sighting.progress, network, submission)
    said = f"executing {sighting.progress:4.0%}{heard}"
    return attempt, said, "█" * filled + "░" * (BAR - filled)


def _heard(progress: float, network: Network, submission: Submission) -> str:
    """Return how much audio there is, where the network document tells how long it is to be."""
    task = submission.tracker.task
    length = None if task is None else network.audio_seconds(task)
    return "" if length is None else f" ({progress * length:.1f} of {length:.1f} s)"


def _word(sighting: NodeStatus, network: Network, submission: Submission) -> str:
    """Return a node's state; one that waits because it is in no committee is said to look on."""
    if sighting.state is State.WAITING and not _sits(sighting, network, submission):
        return "looking on"
    return str(sighting.state)


def _sits(sighting: NodeStatus, network: Network, submission: Submission) -> bool:
    task = submission.tracker.task
    if task is None:
        return True
    attempts = committees(network, task)
    return sighting.peer in attempts[min(sighting.attempt, len(attempts) - 1)]


def _plain(network: Network, submission: Submission, say: Say) -> Show:
    last: dict[str, str] = {}

    def show(sighting: NodeStatus) -> None:
        said = _word(sighting, network, submission)
        if sighting.state is State.EXECUTING:
            share = sighting.progress // STEP * STEP
            said += f" {share:.0%}{_heard(share, network, submission)}"
        line = f"{display_name(sighting.peer, network)}  attempt {sighting.attempt}  {said}"
        if last.get(sighting.peer) != line:
            last[sighting.peer] = line
            say(line)

    return show
