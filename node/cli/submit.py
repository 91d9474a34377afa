"""`helium submit`: a task out, audio and a certificate back."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from node.cli import arguments, options
from node.cli.exits import Exit, Failure
from node.cli.files import FILE
from node.cli.progress import follow
from node.cli.summary import (
    audio_entries,
    audio_lines,
    certificate_path,
    missing_votes,
    score_paths,
    vote_lines,
    votes,
    write_certificate,
)
from node.cli.talking import place, talk
from node.client import Client, NoAgreement, Submission
from protocol.committee import committees
from protocol.effects import State
from protocol.network import Network

LAST_VOTES = 1.0  # seconds, besides the grace, in which a slower member's vote is waited for
POLL = 0.2  # seconds


EXAMPLES = """\b
Examples:
  helium submit task.json -o song.wav
  helium submit --model helium/embedded-music --prompt "rain" --seed 42 --max-new-tokens 253
  echo '{"model": "helium/embedded-music", "prompt": "rain", "seed": 1}' | helium submit -
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=FILE, required=False)
@arguments.flags
@click.option("--deadline", type=int, metavar="SECONDS", help="When to give up. [default: 600]")
@click.option("--class", "compute_class", metavar="NAME", help="If the network has several.")
@click.option("--key", type=FILE, help="Sign with this key instead of a fresh one.")
@click.option("-o", "--output", type=FILE, default=Path("song.wav"), show_default=True)
@click.option("--no-wait", is_flag=True, help="Print the task's id and leave.")
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
    **given: object,
) -> None:
    """Submit a task, wait, and write the audio and, beside it, its certificate.

    FILE holds the task's arguments as a JSON object ({"model": ..., "prompt": ..., "seed": 42,
    "generation_config": {...}}); `-` is standard input. Flags count before what the file says.
    """
    where = place(network, peers, key)
    asked = arguments.request(file, given)

    async def conversation(client: Client) -> None:
        submission = await client.submit(
            asked.kind,
            asked.args,
            audio=asked.audio,
            compute_class=compute_class,
            deadline=deadline,
        )
        if no_wait:
            options.say({"task": submission.id}, [submission.id], as_json)
            return
        options.note(f"task {submission.id}")
        (await deliver(client, submission, output)).report(as_json)

    talk(where, conversation)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a task came to, as a document and as lines; `failure` if that is no agreement."""

    document: Mapping[str, object]
    lines: Sequence[str]
    failure: Failure | None = None

    def report(self, as_json: bool) -> None:
        """Print it. Raises the failure."""
        options.say(self.document, self.lines, as_json)
        if self.failure is not None:
            raise self.failure


async def deliver(client: Client, submission: Submission, output: Path) -> Delivery:
    """Wait for a task with its progress shown; write its audio and its certificate."""
    began = time.monotonic()
    await follow(submission, client.network)
    try:
        certificate = await submission.certificate()
    except NoAgreement as ended:
        await last_votes(client, submission, None)
        return _disagreement(client.network, submission, ended)
    result = await client.fetch(certificate)
    await last_votes(client, submission, certificate.attempt)
    target = certificate_path(output)
    await asyncio.to_thread(result.write, output)
    write_certificate(certificate, target)
    ballots = submission.tracking.ballots
    document = {
        "task": submission.id,
        "state": str(State.AGREED),
        "attempt": certificate.attempt,
        "signers": list(certificate.signers),
        "votes": votes(ballots, certificate),
        "certificate": str(target),
        "audio": audio_entries(result, output),
        "midi": [str(path) for path in score_paths(result, output)],
        "seconds": round(time.monotonic() - began, 3),
    }
    lines = [
        f"agreed       task {submission.id}",
        *vote_lines(ballots, certificate, client.network),
        f"certificate  {target}",
        *audio_lines(result, output),
    ]
    return Delivery(document, lines)


def _disagreement(network: Network, submission: Submission, ended: NoAgreement) -> Delivery:
    ballots = submission.tracking.ballots
    document = {
        "task": submission.id,
        "state": str(ended.state),
        "votes": votes(ballots, None),
    }
    lines = [f"{ended.state}  task {submission.id}", *vote_lines(ballots, None, network)]
    return Delivery(document, lines, Failure(Exit.NO_AGREEMENT, str(ended)))


async def last_votes(client: Client, submission: Submission, attempt: int | None) -> None:
    """Wait a little for the members that had not revealed when the task ended.

    They change nothing; but who dissents should be named. `attempt` None is the last one.
    """
    task = submission.tracking.task
    if task is None:
        return
    attempts = committees(client.network, task)
    counted = len(attempts) - 1 if attempt is None else attempt
    until = time.monotonic() + client.network.parameters.commit_grace_seconds + LAST_VOTES
    while missing_votes(submission.tracking, counted, attempts[counted]):
        await submission.tracking.refresh()
        if time.monotonic() > until:
            return
        await asyncio.sleep(POLL)
