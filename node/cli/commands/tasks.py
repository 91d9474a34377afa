"""`helium status` and `helium fetch`: a task that was submitted earlier, by anyone."""

import re
from pathlib import Path

import click

from node.cli import options
from node.cli.files import FILE
from node.cli.options import display_name
from node.cli.session import resolve_target, run_with_client
from node.cli.summary import (
    conflict_entries,
    conflict_lines,
    conflicts,
    vote_lines,
    votes,
)
from node.cli.task_output import Delivery, check_output, deliver, interruptible
from node.client.client import Client
from node.sync.task_tracker import NodeStatus, TaskTracker, UnknownTask
from protocol.consensus.certificate import Certificate

_ID = re.compile(r"[0-9a-f]{64}")


def _task_id(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _ID.fullmatch(value):
        raise click.BadParameter("must be a task id: 64 lowercase hex characters")
    return value


task_argument = click.argument("task", callback=_task_id)


@click.command()
@task_argument
@options.client
@options.as_json
def status(task: str, network: Path | None, peers: tuple[str, ...], as_json: bool) -> None:
    """Show how TASK stands at each node, and who has voted for what.

    Votes and certificate are verified here; a node's state is only what it says.
    """

    async def action(client: Client) -> None:
        tracking = client.follow(task).tracker
        sightings = await tracking.refresh()
        if not sightings:
            raise UnknownTask(f"no connected node knows the task {task}")
        document, lines = _standing(task, tracking, sightings, client)
        options.say(document, lines, as_json)

    run_with_client(resolve_target(network, peers), action)


def _standing(
    task: str, tracking: TaskTracker, sightings: list[NodeStatus], client: Client
) -> tuple[dict[str, object], list[str]]:
    certificate, others = tracking.settled, conflicts(tracking)
    document: dict[str, object] = {
        "task": task,
        "certified": certificate is not None,
        "outcome": None if certificate is None else certificate.outcome,
        "signers": [] if certificate is None else list(certificate.signers),
        "nodes": [{"peer": s.peer, "state": str(s.state), "attempt": s.attempt} for s in sightings],
        "votes": votes(tracking.votes, certificate),
        "conflict": conflict_entries(others),
    }
    lines = [
        f"task {task}: {_verdict(certificate)}",
        *(
            f"{display_name(s.peer, client.network)}  says {s.state}, attempt {s.attempt}"
            for s in sightings
        ),
        *vote_lines(tracking.votes, certificate, client.network),
        *conflict_lines(others, client.network),
    ]
    return document, lines


def _verdict(certificate: Certificate | None) -> str:
    if certificate is None:
        return "no certificate"
    code = certificate.outcome.get("error")
    return f"certified: error {code}" if code else "certified"


@click.command()
@task_argument
@click.option("-o", "--output", type=FILE, default=Path("song.wav"), show_default=True)
@options.client
@options.as_json
def fetch(
    task: str, output: Path, network: Path | None, peers: tuple[str, ...], as_json: bool
) -> None:
    """Fetch TASK's audio and certificate, waiting for it if it has not ended.

    The certificate is verified against the network document, the audio against the certificate;
    where one node serves wrong bytes, the next is asked.
    """
    check_output(output)

    async def action(client: Client) -> Delivery:
        return await deliver(client, client.follow(task), output)

    with interruptible(task):
        run_with_client(resolve_target(network, peers), action).report(as_json)
