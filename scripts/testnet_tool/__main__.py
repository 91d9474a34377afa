"""A network on this machine: nodes as separate processes, one task, a verified result.

Started by `scripts/testnet`, which sets up what is needed first.
"""

import asyncio
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from node.cli.commands.network import local_compute_class
from node.cli.exit_codes import Exit, Failure
from node.cli.files import read_json
from node.cli.main import one_line_each
from node.cli.session import exit_codes, silence_libp2p
from node.cli.task_output import wait_and_write
from node.client.client import Client
from node.config import log_setup
from protocol.network import Network, NetworkParameters
from scripts.testnet_tool.liar import lie_of
from scripts.testnet_tool.nodes import NodeDown, Nodes, Place, lay_out

ROOT = Path(__file__).resolve().parent.parent.parent
TASK = ROOT / "docs" / "text-to-music.json"
GRACE = 5.0  # seconds; members that share a few cores commit seconds apart
LARGEST = 7  # the most members of a committee here


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line."""

    nodes: int
    liars: int
    committee: int
    task: Path
    out: Path
    keep: bool
    as_json: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--nodes", type=click.IntRange(1, 31), default=4, show_default=True)
@click.option("--liars", type=click.IntRange(0, 31), default=0, help="Nodes that alter results.")
@click.option("--committee", type=click.IntRange(1, LARGEST), help="Members of a first attempt.")
@click.option(
    "--task",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=TASK,
    help="The task's arguments. [default: docs/text-to-music.json]",
)
@click.option("--keep", is_flag=True, help="Stay up after the task, until ctrl-C.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "testnet-out",
    help="Where keys, logs, certificate and audio go. [default: testnet-out]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def testnet(
    nodes: int,
    liars: int,
    committee: int | None,
    task: Path,
    keep: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Start nodes on this machine, submit a task to them, and show how they agree.

    With --liars the committee is all nodes (up to seven), so that the liars take part. Exit codes
    are those of `helium submit`: 5 if the nodes came to no agreement.
    """
    if liars > nodes:
        raise click.UsageError("--liars: more liars than nodes")
    size = committee or min(nodes, LARGEST if liars else 3)
    wish = Wish(nodes, liars, size, task, out.absolute(), keep, as_json)
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    log_setup.configure("error", "auto")
    silence_libp2p()
    with one_line_each():
        _run(wish)


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _run(wish: Wish) -> None:
    began = time.monotonic()
    args = read_json(wish.task)
    if not isinstance(args, Mapping):
        raise Failure(Exit.USAGE, f"{wish.task}: must be a JSON object")
    _note("reading this machine's compute class")
    largest = wish.committee if wish.liars else LARGEST
    parameters = NetworkParameters(
        committee_size=wish.committee, committee_max=largest, commit_grace_seconds=GRACE
    )
    try:
        network, places = lay_out(
            wish.out, wish.nodes, local_compute_class(), parameters, wish.liars
        )
    except FileExistsError as error:
        raise Failure(Exit.USAGE, f"--out: {error}") from None
    _note(f"network {network.id}: {wish.nodes} nodes, keys and logs in {wish.out}")
    for place in places:
        if place.lie is not None:
            _note(f"{place.name} will lie: {_lie(place)}")
    try:
        with Nodes(wish.out / "network.json", places) as nodes:
            _note("starting the nodes")
            nodes.wait_ready()
            ready = time.monotonic()
            _note(f"all nodes are ready and connected after {ready - began:.1f} s")
            failure = asyncio.run(_converse(wish, network, nodes, args, (began, ready)))
            if wish.keep:
                _stay(wish, nodes)
    except NodeDown as error:
        raise Failure(Exit.FAULT, str(error)) from None
    if failure is not None:
        raise failure


async def _converse(
    wish: Wish,
    network: Network,
    nodes: Nodes,
    args: Mapping[str, object],
    times: tuple[float, float],
) -> Failure | None:
    """Submit the task, report what it came to, and return the failure if it is one."""
    with exit_codes():
        async with Client.connect(network, nodes.addresses) as client:
            submission = await client.submit("text-to-music", args)  # type: ignore[arg-type]
            _note(f"task {submission.id}")
            report = await wait_and_write(client, submission, wish.out / "song.wav")
    began, ready = times
    seconds = {"start": round(ready - began, 1), "task": round(time.monotonic() - ready, 1)}
    lying = {place.peer: _lie(place) for place in nodes.places if place.lie is not None}
    if wish.as_json:
        document = {**report.document, "network": network.id, "liars": lying, "seconds": seconds}
        click.echo(json.dumps(document))
    else:
        click.echo("\n".join(report.lines))
        click.echo(f"seconds      {seconds['start']} to start, {seconds['task']} for the task")
    return report.failure


def _stay(wish: Wish, nodes: Nodes) -> None:
    """Keep the nodes up until a signal; say how to use them."""
    first = wish.out / "song.wav.certificate.json"
    audio = wish.out / "song.wav"
    helium = _helium()
    shown = [
        "",
        "The nodes stay up until ctrl-C. In another terminal:",
        "",
        f"export HELIUM_NETWORK={shlex.quote(str(wish.out / 'network.json'))}",
        f"export HELIUM_PEERS={','.join(nodes.addresses)}",
        f"{helium} peers",
        f"{helium} submit {shlex.quote(str(wish.task))} --seed 7 -o song.wav",
        f"{helium} verify {shlex.quote(str(first))} --audio {shlex.quote(str(audio))}",
        "",
    ]
    click.echo("\n".join(shown), err=wish.as_json)
    try:
        while True:
            nodes.check()
            time.sleep(1)
    except KeyboardInterrupt:
        _note("stopping the nodes")


def _helium() -> str:
    """Return how to call `helium` from where the user is."""
    installed = Path(sys.prefix) / "bin" / "helium"
    return os.path.relpath(installed) if installed.exists() else "python -m node.cli"


def _lie(place: Place) -> str:
    described = (lie_of(place.lie).__doc__ if place.lie else None) or "Louder."
    return described.rstrip(".").lower()


def _note(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    testnet(prog_name="testnet")
