"""`helium submit`, `helium status` and `helium fetch`: a task and its result."""

from collections.abc import Sequence
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.cli import options, task_arguments
from node.cli.commands.usage_report import describe_usage
from node.cli.exit_codes import usage
from node.cli.files import FILE
from node.cli.session import map_exit_codes, resolve_target, run_with_client
from node.cli.task_arguments import TaskRequest
from node.cli.task_output import (
    TaskReport,
    check_output,
    conflict_entries,
    conflict_lines,
    conflicts,
    dropped_lines,
    explain_interrupt,
    task_entry,
    vote_entries,
    vote_lines,
    wait_and_write,
    withdrawal_lines,
)
from node.client.arguments import InvalidArgument, task_prefix
from node.client.client import READY_SECONDS, Client
from node.client.inputs import InputFile, read_inputs
from node.client.submission import sign_task
from node.sync.task_tracker import NodeStatus, TaskTracker, UnknownTask
from protocol.consensus.certificate import Certificate
from protocol.network import Network
from protocol.wire.encoding import Document, Json

SUBMIT_EPILOG = """\b
Examples:
  helium submit task.json -o song.wav
  helium submit --model helium/embedded-music --prompt "rain" --seed 42 --seconds 5
  echo '{"model": "helium/embedded-music", "prompt": "rain", "seed": 1}' | helium submit -

\b
Output:
  a line for each vote. DISSENT marks a member that revealed another outcome.
  certificate  the certificate's file
  tokens       the tokens of a sequence, if the task proves work
  audio        a WAV file, with its length, sampling rate and channels
Progress goes to standard error. Exit code 0 means that the members agreed and that the audio
matches the certificate. Exit code 4: the task was rejected, or the members agree on an error.
Exit code 5: the members did not agree.

\b
Everything is public: the prompt, the inputs, the result and the votes. Every peer can read them,
for as long as any peer keeps them. Nothing is encrypted, and nothing can be deleted.
"""

STATUS_EPILOG = """\b
Example:
  helium status 1b69885465d833fc7e9b32d356a60a7453a84092fe4b5c75f02cd451c2b5764e
  helium status --data-dir ~/.local/share/helium --json

\b
Output:
  task ...     "certified" if a valid certificate exists
  requester    the peer that asked for the task; it signed it
  withdrawn    the requester has withdrawn the task: members that had not begun it abstain. A
               certificate stands nevertheless: then the withdrawal has no effect
  votes ...    nodes that keep no votes of old tasks, only their certificates
  ... says     the state that a node reports: waiting, executing, committed, agreed, ...
  attempt ...  the vote of a committee member. DISSENT marks another outcome.
  CONFLICT     another valid certificate for this task: the committee has a faulty majority
Output without a task, since the node's start:
  processor    seconds of the node itself; the processes that execute tasks are left out
  bytes        what all its connections carried
  messages     gossip that was new, and that it had already
"""

FETCH_EPILOG = """\b
Example:
  helium fetch 1b69885465d833fc7e9b32d356a60a7453a84092fe4b5c75f02cd451c2b5764e -o song.wav

Output and exit codes are those of helium submit.
"""


def _task_id(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return task_prefix(value)
    except InvalidArgument:
        raise click.BadParameter(
            "must be a task id: 64 lowercase hex characters, or the first 8 of them or more"
        ) from None


task_argument = click.argument("task", callback=_task_id)
output_option = click.option(
    "-o",
    "--output",
    type=FILE,
    default=Path("song.wav"),
    show_default=True,
    help="The WAV file to write. The certificate goes to FILE.certificate.json.",
)


@click.command(epilog=SUBMIT_EPILOG)
@click.argument("file", type=FILE, required=False)
@task_arguments.flags
@click.option(
    "--deadline",
    type=int,
    metavar="SECONDS",
    help="The time after which the task expires. [default: 600 and three attempts, or the "
    "network's longest]",
)
@click.option(
    "--class",
    "compute_class",
    metavar="NAME",
    help="The compute class. Without it: the only one that can run the task, or of several the one "
    "for its model; if there is no such one, it is required.",
)
@options.requester_key(
    "Sign with this key instead of a new one, so that helium cancel can withdraw the task."
)
@output_option
@click.option("--no-wait", is_flag=True, help="Print the task id and exit.")
@options.client
@options.as_json
def submit(
    file: Path | None,
    deadline: int | None,
    compute_class: str | None,
    key: Path | None,
    output: Path,
    no_wait: bool,
    network: Path | None,
    peers: tuple[str, ...],
    as_json: bool,
    **arguments: object,
) -> None:
    """Submit a task, wait for it, and write the audio and its certificate.

    FILE is a JSON object with the task's arguments: {"model": ..., "prompt": ..., "seed": 42,
    "generation_config": {...}}. `-` reads standard input. A flag overrides the same argument of
    FILE. The certificate is written beside the audio, and so are the tokens of a task that proves
    work: with both anyone can compute the work anew.

    Without --class, of several classes that can run the task the engine's is taken if the network
    lists the model with replay, and otherwise the one that is not the engine's.

    Prompt and inputs become public: every peer of the network can read them, for as long as any
    peer keeps them.
    """
    if file is None and all(value in (None, ()) for value in arguments.values()):
        raise usage("no task: name a FILE or give --model, --prompt and --seed (see --help)")
    # The cheap checks come first: no node should compute for a result that cannot be written.
    if not no_wait:
        check_output(output)
    target = resolve_target(network, peers, key)
    request = task_arguments.task_request(file, arguments)
    audio, args = checked_task(request, target.network, compute_class, deadline)
    for song in audio:
        options.note(f"audio {song.name}: {song}")

    async def action(client: Client) -> None:
        submission = await client.submit(
            request.kind,
            args,
            audio=audio,
            compute_class=compute_class,
            deadline=deadline,
            on_wait=lambda reasons: options.note(f"{reasons}; waiting up to {READY_SECONDS:.0f} s"),
        )
        if no_wait:
            document = {"task": submission.id, "requester": client.requester}
            options.say(document, [submission.id], as_json)
            return
        # Before waiting, so that the id is known even if the terminal is closed.
        options.note(f"task {submission.id}")
        with explain_interrupt(submission.id, key):
            report = await wait_and_write(client, submission, output)
        report.print(as_json)

    run_with_client(target, action)


def checked_task(
    request: TaskRequest, network: Network, compute_class: str | None, deadline: int | None
) -> tuple[Sequence[InputFile], Document]:
    """Return a task's inputs and arguments, valid for the network.

    Otherwise it is a failure, before any node is asked: connecting takes seconds.
    """
    with map_exit_codes():
        audio = read_inputs(request.audio, network, request.args.get("model"))
        # The network document relates seconds to tokens.
        args = request.args_for(network)
        references: dict[str, Json] = {"audio": [song.reference for song in audio]} if audio else {}
        sign_task(
            network,
            Ed25519PrivateKey.generate(),
            request.kind,
            {**args, **references},
            compute_class=compute_class,
            deadline=deadline,
            created=0,
            nonce="0" * 32,
        )
    return audio, args


@click.command(epilog=STATUS_EPILOG)
@click.argument("task", required=False, callback=_task_id)
@options.client
@options.data_dir
@options.as_json
def status(
    task: str | None,
    network: Path | None,
    peers: tuple[str, ...],
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Show the state of TASK at each connected node, and its votes.

    TASK is a task id, or its first 8 characters or more. Votes and certificates are verified here.
    A node's state is not signed, so it is only what that node reports. Without TASK, show what the
    node of a data folder on this machine has cost since its start.
    """
    if task is None:
        options.say(*describe_usage(data_dir), as_json)
        return

    async def action(client: Client) -> None:
        id_ = await client.find_task(task)
        tracker = client.follow(id_).tracker
        statuses = await tracker.refresh()
        if not statuses:
            raise UnknownTask(f"no connected node knows the task {id_}")
        document, lines = describe_status(id_, tracker, statuses, client)
        options.say(document, lines, as_json)

    run_with_client(resolve_target(network, peers), action)


def describe_status(
    task: str, tracker: TaskTracker, statuses: Sequence[NodeStatus], client: Client
) -> tuple[dict[str, object], list[str]]:
    """Return a task's state as the JSON document and as the lines of `helium status`."""
    tracker.count_certified()  # nodes may have dropped all other votes
    certificate, conflicting = tracker.settled, conflicts(tracker)
    document: dict[str, object] = {
        **task_entry(task, tracker),
        "certified": certificate is not None,
        "outcome": None if certificate is None else certificate.outcome,
        "signers": [] if certificate is None else list(certificate.signers),
        "nodes": [{"peer": s.peer, "state": str(s.state), "attempt": s.attempt} for s in statuses],
        "votes": vote_entries(tracker.votes, certificate),
        "conflict": conflict_entries(conflicting),
    }
    lines = [
        f"task {task}: {_summary(certificate)}",
        *([] if tracker.task is None else [f"requester {tracker.task.requester}"]),
        *withdrawal_lines(tracker),
        *dropped_lines(tracker),
        *(
            f"{options.display_name(s.peer, client.network)}  says {s.state}, attempt {s.attempt}"
            for s in statuses
        ),
        *vote_lines(tracker.votes, certificate, client.network),
        *conflict_lines(conflicting, client.network),
    ]
    return document, lines


def _summary(certificate: Certificate | None) -> str:
    if certificate is None:
        return "no certificate"
    code = certificate.outcome.get("error")
    return f"certified: error {code}" if code else "certified"


@click.command(epilog=FETCH_EPILOG)
@task_argument
@output_option
@options.client
@options.as_json
def fetch(
    task: str, output: Path, network: Path | None, peers: tuple[str, ...], as_json: bool
) -> None:
    """Fetch the audio and the certificate of TASK; wait if it has not ended.

    TASK is a task id, or its first 8 characters or more. The certificate is verified against the
    network document, and the audio against the certificate. If a node serves wrong bytes, the next
    node is asked.
    """
    check_output(output)

    async def action(client: Client) -> TaskReport:
        return await wait_and_write(client, client.follow(await client.find_task(task)), output)

    with explain_interrupt(task):
        run_with_client(resolve_target(network, peers), action).print(as_json)
