"""What `helium submit` and `helium fetch` wait for: how a task ended, shown and written."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.cli import options
from node.cli.exit_codes import Exit, Failure, usage
from node.cli.files import check_writable
from node.cli.progress import follow
from node.cli.summary import (
    audio_entries,
    audio_lines,
    certificate_path,
    conflict_entries,
    conflict_lines,
    conflicts,
    missing_votes,
    score_paths,
    vote_lines,
    votes,
    write_certificates,
)
from node.client.client import Client, GenerationFailed, NoAgreement, Submission
from node.client.result import Result
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.effects import State

LAST_VOTES = 1.0  # seconds, besides the grace, in which a slower member's vote is waited for
POLL = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a task came to, as a document and as lines; `failure` if that is no result."""

    document: Mapping[str, object]
    lines: Sequence[str]
    failure: Failure | None = None

    def report(self, as_json: bool) -> None:
        """Print it. Raises the failure."""
        options.say(self.document, self.lines, as_json)
        if self.failure is not None:
            raise self.failure


@contextmanager
def interruptible(task: str) -> Iterator[None]:
    """Let Ctrl-C end the waiting, and say how to wait for the task again."""
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        message = f"interrupted; the task goes on: helium fetch {task}"
        raise Failure(Exit.INTERRUPTED, message) from None


def check_output(output: Path) -> None:
    """See to it, before anyone is asked for anything, that a song can be written there."""
    if not output.name:
        raise usage("-o: must name a file")
    try:
        check_writable(certificate_path(output))
    except OSError as error:
        raise usage(f"{output}: cannot be written: {error.strerror}") from None


async def deliver(client: Client, submission: Submission, output: Path) -> Delivery:
    """Wait for a task with its progress shown; write its audio and its certificate.

    An agreed error has a certificate too, which is written; no agreement has none.
    """
    began = time.monotonic()
    await follow(submission, client)
    try:
        certificate = await submission.certificate()
    except NoAgreement as ended:
        await last_votes(client, submission, None)
        return _disagreement(client, submission, ended)
    try:
        result = await client.fetch(certificate)
    except GenerationFailed as failed:
        await last_votes(client, submission, certificate.attempt)
        return _agreed_error(client, submission, failed, output)
    await last_votes(client, submission, certificate.attempt)
    await asyncio.to_thread(_write, result, conflicts(submission.tracker), output)
    found = _certified(client, submission, certificate, State.AGREED, output)
    seconds = round(time.monotonic() - began, 3)
    document = {
        **found.document,
        "audio": audio_entries(result, output),
        "midi": [str(path) for path in score_paths(result, output)],
        "seconds": seconds,
    }
    return Delivery(document, [*found.lines, *audio_lines(result, output)])


def _write(result: Result, others: Sequence[Certificate], output: Path) -> None:
    """Write all of a song's files to a folder beside `output`, then rename each, or write none."""
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".helium-") as name:
            drafts = Path(name)
            result.write(drafts / output.name)
            write_certificates(result.certificate, others, drafts / output.name)
            for draft in drafts.iterdir():
                draft.replace(output.with_name(draft.name))
    except OSError as error:
        reason = error.strerror or str(error)
        raise Failure(Exit.FAULT, f"{output}: cannot be written: {reason}") from None
    except RuntimeError as error:  # soundfile's
        raise Failure(Exit.FAULT, f"{output}: cannot be written: {error}") from None
    except AssertionError:  # soundfile's, when fewer samples were written than it was given
        raise Failure(Exit.FAULT, f"{output}: cannot be written whole: disk full?") from None


def _agreed_error(
    client: Client, submission: Submission, failed: GenerationFailed, output: Path
) -> Delivery:
    write_certificates(failed.certificate, conflicts(submission.tracker), output)
    found = _certified(client, submission, failed.certificate, State.AGREED_ERROR, output)
    document = {**found.document, "code": failed.code}
    lines = [f"{found.lines[0]}: {failed.code}", *found.lines[1:]]
    return Delivery(document, lines, Failure(Exit.REJECTED, str(failed)))


def _certified(
    client: Client, submission: Submission, certificate: Certificate, state: State, output: Path
) -> Delivery:
    """Return what a result and an agreed error have in common."""
    ballots, others = submission.tracker.votes, conflicts(submission.tracker)
    document = {
        "task": submission.id,
        "state": str(state),
        "attempt": certificate.attempt,
        "signers": list(certificate.signers),
        "votes": votes(ballots, certificate),
        "certificate": str(certificate_path(output)),
        "conflict": conflict_entries(others),
    }
    lines = [
        f"{state:<12} task {submission.id}",
        *vote_lines(ballots, certificate, client.network),
        *conflict_lines(others, client.network),
        f"certificate  {certificate_path(output)}",
    ]
    return Delivery(document, lines)


def _disagreement(client: Client, submission: Submission, ended: NoAgreement) -> Delivery:
    ballots = submission.tracker.votes
    document = {
        "task": submission.id,
        "state": str(ended.state),
        "votes": votes(ballots, None),
        "conflict": [],
    }
    lines = [f"{ended.state}  task {submission.id}", *vote_lines(ballots, None, client.network)]
    return Delivery(document, lines, Failure(Exit.NO_AGREEMENT, str(ended)))


async def last_votes(client: Client, submission: Submission, attempt: int | None) -> None:
    """Wait a little for the members that had not revealed when the task ended.

    They change nothing; but who dissents should be named. `attempt` None is the last one.
    """
    task = submission.tracker.task
    if task is None:
        return
    attempts = committees(client.network, task)
    counted = len(attempts) - 1 if attempt is None else attempt
    until = client.clock.now() + client.network.parameters.commit_grace_seconds + LAST_VOTES
    while missing_votes(submission.tracker, counted, attempts[counted]):
        await submission.tracker.refresh()
        if client.clock.now() > until:
            return
        await asyncio.sleep(POLL)
