"""`scripts/testnet`: a network of processes on this machine, one task, a verified result."""

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click
from click.core import ParameterSource

from node.cli import interrupts
from node.cli.exit_codes import Exit, Failure
from node.cli.files import read_json
from node.cli.session import map_exit_codes, silence_libp2p
from node.cli.task_output import wait_and_write
from node.client.client import Client
from node.config import log_setup
from protocol.network import Network, NetworkParameters
from scripts import one_line
from scripts.testnet_tool import folder
from scripts.testnet_tool.liar import describe_lie
from scripts.testnet_tool.nodes import (
    Daemons,
    LocalNode,
    create_network,
    free_ports,
    is_free,
    measured_classes,
)

ROOT = Path(__file__).resolve().parent.parent.parent
TASK = ROOT / "docs" / "text-to-music.json"
DEFAULT_OUT = ROOT / "testnet-out"
# Members that share a few cores commit seconds apart.
GRACE_SECONDS = 5.0
# The largest committee, whatever the number of nodes.
MAX_COMMITTEE = 7


@dataclass(frozen=True, slots=True)
class TestnetOptions:
    """The command line's options."""

    nodes: int
    liars: int
    committee: int
    task: Path
    out: Path
    keep: bool
    piano: bool
    resume: bool
    as_json: bool


# `scripts/testnet` prints the help, before it installs anything.
@click.command(cls=one_line.Command, add_help_option=False)
@click.option("--nodes", type=click.IntRange(1, 31), default=4)
@click.option("--liars", type=click.IntRange(0, 31), default=0)
@click.option("--committee", type=click.IntRange(1, MAX_COMMITTEE))
@click.option("--task", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=TASK)
@click.option("--keep", is_flag=True)
@click.option("--piano", is_flag=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--resume", is_flag=True)
@click.option("--json", "as_json", is_flag=True)
def testnet(
    nodes: int,
    liars: int,
    committee: int | None,
    task: Path,
    keep: bool,
    piano: bool,
    out: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Start nodes on this machine, submit a task to them, and show their votes."""
    if liars > nodes:
        raise click.UsageError(f"--liars {liars}: must not exceed --nodes {nodes}")
    if resume:
        _reject_with_resume()
    args = _task(task)
    size = committee or min(nodes, MAX_COMMITTEE if liars else 3)
    log_setup.configure("error", "auto")
    with _folder(out, resume=resume) as root:
        _run(TestnetOptions(nodes, liars, size, task, root, keep, piano, resume, as_json), args)


def _reject_with_resume() -> None:
    """Refuse what the network document of the folder has decided already."""
    context = click.get_current_context()
    for name in ("nodes", "liars", "committee", "piano"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name}: not with --resume, the network has its nodes already"
            )


@contextlib.contextmanager
def _folder(out: Path | None, *, resume: bool) -> Iterator[Path]:
    """Hold the folder of --out, or one that is free."""
    try:
        if out is not None or resume:
            root = (out or DEFAULT_OUT).absolute()
            with folder.locked(root):
                yield root
        else:
            with folder.locked_free(DEFAULT_OUT) as root:
                if root != DEFAULT_OUT:
                    _show(f"another test network runs in {DEFAULT_OUT}: this one uses {root}")
                yield root
    except (FileExistsError, folder.FolderInUse, folder.FolderNotUsable) as error:
        raise Failure(Exit.USAGE, f"--out: {error}") from None


def _run(options: TestnetOptions, args: Mapping[str, object]) -> None:
    started = time.monotonic()
    network, nodes = _resume(options) if options.resume else _create_network(options)
    folder.save(options.out, nodes)
    for node in nodes:
        if node.lie is not None:
            _show(f"{node.name} will lie: {describe_lie(node.lie)}")
    with Daemons(options.out / "network.json", nodes) as daemons:
        _show("starting the nodes")
        daemons.wait_ready()
        ready = time.monotonic()
        _show(f"all nodes are ready and connected after {ready - started:.1f} s")
        submitting = _submit(options, network, daemons, args, (started, ready))
        failure = interrupts.run(submitting)
        if options.keep:
            _stay_up(options, daemons)
    if failure is not None:
        raise failure


def _task(file: Path) -> Mapping[str, object]:
    """Return the arguments of the task. A usage failure says what is wrong with them."""
    try:
        args = read_json(file)
    except Failure as failure:
        raise Failure(Exit.USAGE, f"--task: {failure.message}") from None
    if not isinstance(args, Mapping):
        raise Failure(Exit.USAGE, f"--task: {file}: must be a JSON object")
    return args


def _create_network(options: TestnetOptions) -> tuple[Network, list[LocalNode]]:
    parameters = NetworkParameters(
        committee_size=options.committee,
        # With liars, later attempts must not add honest members from outside: there are none.
        committee_max=options.committee if options.liars else MAX_COMMITTEE,
        commit_grace_seconds=GRACE_SECONDS,
    )
    _show("reading this machine's compute classes")
    classes = measured_classes(["music", "piano"] if options.piano else ["music"])
    folder.clear(options.out)
    network, nodes = create_network(options.out, options.nodes, classes, parameters, options.liars)
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    _show(f"network {network.id}: {count}, keys and logs in {options.out}")
    return network, nodes


def _resume(options: TestnetOptions) -> tuple[Network, list[LocalNode]]:
    """Return the network of the folder. Its nodes keep their ports if these are free."""
    try:
        network, nodes = folder.load(options.out)
    except folder.NotResumable as error:
        raise Failure(Exit.USAGE, f"--resume: {error}") from None
    _show(f"network {network.id}: {len(nodes)} nodes go on in {options.out}")
    if all(is_free(node.port) for node in nodes):
        return network, nodes
    ports = free_ports(len(nodes))
    return network, [replace(node, port=port) for node, port in zip(nodes, ports, strict=True)]


async def _submit(
    options: TestnetOptions,
    network: Network,
    daemons: Daemons,
    args: Mapping[str, object],
    times: tuple[float, float],
) -> Failure | None:
    """Submit the task and print its result. Returns the failure instead of raising it.

    `times` are those of the start and of readiness, for the report.
    """
    silence_libp2p()  # its import takes a second, which the nodes need before they are ready
    with map_exit_codes():
        async with Client.connect(network, daemons.addresses) as client:
            submission = await client.submit("text-to-music", args)  # type: ignore[arg-type]
            _show(f"task {submission.id}")
            report = await wait_and_write(client, submission, options.out / "song.wav")
    started, ready = times
    seconds = {"start": round(ready - started, 1), "task": round(time.monotonic() - ready, 1)}
    liars = {node.peer: describe_lie(node.lie) for node in daemons.nodes if node.lie is not None}
    if options.as_json:
        document = {**report.document, "network": network.id, "liars": liars, "seconds": seconds}
        click.echo(json.dumps(document))
    else:
        click.echo("\n".join(report.lines))
        click.echo(f"seconds      {seconds['start']} to start, {seconds['task']} for the task")
    return report.failure


def _stay_up(options: TestnetOptions, daemons: Daemons) -> None:
    """Show how to use the nodes, and keep them running until a signal."""
    certificate = options.out / "song.wav.certificate.json"
    audio = options.out / "song.wav"
    helium = _helium_command()
    instructions = [
        "",
        "The nodes stay up until ctrl-C. In another terminal:",
        "",
        f"source {shlex.quote(str(options.out / folder.ENVIRONMENT))}    # or these two lines:",
        *folder.exports(options.out, daemons.nodes),
        f"{helium} peers",
        f"{helium} submit {shlex.quote(str(options.task))} --seed 7 -o song.wav",
        f"{helium} verify {shlex.quote(str(certificate))} --audio {shlex.quote(str(audio))}",
        "",
    ]
    click.echo("\n".join(instructions), err=options.as_json)
    try:
        while True:
            daemons.check()
            time.sleep(1)
    except KeyboardInterrupt:
        _show("stopping the nodes")


def _helium_command() -> str:
    """Return the command `helium` relative to the current folder."""
    installed = Path(sys.prefix) / "bin" / "helium"
    return os.path.relpath(installed) if installed.exists() else "python -m node.cli"


def _show(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    one_line.run(lambda: testnet(prog_name="scripts/testnet", standalone_mode=False))
