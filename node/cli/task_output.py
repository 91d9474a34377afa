"""What `submit`, `fetch` and `status` print of a task, and the files that they write."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.cli import interrupts, options
from node.cli.exit_codes import Exit, Failure, one_line, usage
from node.cli.files import check_writable, write
from node.cli.options import display_name
from node.cli.progress import follow
from node.client.client import Client
from node.client.result import Result, numbered, tokens_path
from node.client.submission import GenerationFailed, Submission
from node.sync.task_tracker import NoAgreement, TaskTracker, VoteSummary
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network

# A slower member reveals after the task has ended. Its vote changes nothing, but a dissenting
# member should be named. So the command waits this many seconds longer than the commit grace.
LAST_VOTES_SECONDS = 1.0
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class TaskReport:
    """The end of a task as a JSON document and as lines; `failure` if there is no result."""

    document: Mapping[str, object]
    lines: Sequence[str]
    failure: Failure | None = None

    def print(self, as_json: bool) -> None:
        """Print the report. Raises `failure`, so that the command exits with its code."""
        options.say(self.document, self.lines, as_json)
        if self.failure is not None:
            raise self.failure


@contextmanager
def explain_interrupt(task: str, key: Path | None = None) -> Iterator[None]:
    """Turn a signal into a `Failure` that says how to wait for the task again, or to cancel it.

    `key` is the file of the requester's key. Without one the key is lost with this process, and
    the task cannot be cancelled.
    """
    advice = f"; the task goes on: helium fetch {task}"
    if key is not None:
        advice += f", or helium cancel {task} --key {key}"
    try:
        with interrupts.advising(one_line(advice)):
            yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise Failure(Exit(interrupts.exit_code()), interrupts.word() + advice) from None


def check_output(output: Path) -> None:
    """Check that the audio can be written, before any node is asked. Raises a usage failure."""
    if not output.name:
        raise usage("-o: must name a file")
    if output.suffix.lower() not in ("", ".wav", ".wave"):
        raise usage(
            f"-o {output}: the audio is written as WAV (32-bit float), which can be verified: name "
            "a file that ends in .wav"
        )
    try:
        check_writable(certificate_path(output))
    except OSError as error:
        raise usage(f"{output}: cannot be written: {error.strerror}") from None


async def wait_and_write(client: Client, submission: Submission, output: Path) -> TaskReport:
    """Wait for a task, show its progress, and write its audio and certificate.

    An agreed error has a certificate, which is written. A task without agreement has none.
    """
    start = time.monotonic()
    # Returns when the task has ended; the certificate, if any, is known by then.
    await follow(submission, client)
    try:
        certificate = await submission.tracker.certificate()
    except NoAgreement as error:
        await _await_last_votes(client, submission, None)
        return _disagreement_report(client, submission, error)
    try:
        result = await client.fetch(certificate)
    except GenerationFailed as error:
        await _await_last_votes(client, submission, certificate.attempt)
        return _error_report(client, submission, error, output)
    await _await_last_votes(client, submission, certificate.attempt)
    # In a thread: encoding minutes of audio would stall the connections.
    await asyncio.to_thread(_write_result, result, conflicts(submission.tracker), output)
    document, lines = _certified(client, submission, certificate, State.AGREED, output)
    document |= {
        "audio": _audio_entries(result, output),
        "midi": [str(path) for path in _score_paths(result, output)],
        "tokens": [str(path) for path in _tokens_paths(result, output)],
        "seconds": round(time.monotonic() - start, 3),
    }
    return TaskReport(document, [*lines, *_audio_lines(result, output)])


async def _await_last_votes(client: Client, submission: Submission, attempt: int | None) -> None:
    """Wait for the votes that were missing when the task ended; `attempt` None is the last one."""
    task = submission.tracker.task
    if task is None:
        return
    # Members of other attempts have no vote to wait for.
    attempts = committees(client.network, task)
    counted = len(attempts) - 1 if attempt is None else attempt
    grace = client.network.parameters.commit_grace_seconds
    end = client.clock.now() + grace + LAST_VOTES_SECONDS
    while not submission.tracker.dropping_peers and _votes_missing(
        submission.tracker, counted, attempts[counted]
    ):
        await submission.tracker.refresh()
        if client.clock.now() > end:
            return
        await asyncio.sleep(POLL_SECONDS)


def _votes_missing(tracker: TaskTracker, attempt: int, committee: Sequence[str]) -> bool:
    voters = {vote.peer for vote in tracker.votes if vote.attempt == attempt}
    return not voters >= set(committee)


# Files


def certificate_path(audio: Path) -> Path:
    """Return the path of the certificate beside an audio file: `song.wav.certificate.json`."""
    return audio.with_name(f"{audio.name}.certificate.json")


def conflict_path(audio: Path, index: int = 0) -> Path:
    """Return the path of a conflicting certificate: `song.wav.conflict.json`."""
    return numbered(audio.with_name(f"{audio.name}.conflict.json"), index)


def write_certificates(
    certificate: Certificate, conflicting: Sequence[Certificate], audio: Path
) -> None:
    """Write the certificates beside `audio`, in the canonical bytes that `verify` requires."""
    write(certificate_path(audio), certificate.encode())
    for index, other_certificate in enumerate(conflicting):
        write(conflict_path(audio, index), other_certificate.encode())


def _write_result(result: Result, conflicting: Sequence[Certificate], output: Path) -> None:
    """Write all files of a result, or none: into a temporary folder, then rename each."""
    # Beside the output, because a rename works only within one file system.
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".helium-") as name:
            folder = Path(name)
            result.write(folder / output.name)
            write_certificates(result.certificate, conflicting, folder / output.name)
            for path in folder.iterdir():
                path.replace(output.with_name(path.name))
    except OSError as error:
        reason = error.strerror or str(error)
        raise Failure(Exit.FAULT, f"{output}: cannot be written: {reason}") from None
    except RuntimeError as error:  # soundfile's
        raise Failure(Exit.FAULT, f"{output}: cannot be written: {error}") from None
    except AssertionError:  # soundfile's, if fewer samples were written than it was given
        raise Failure(Exit.FAULT, f"{output}: cannot be written whole: disk full?") from None


# Reports


def _certified(
    client: Client, submission: Submission, certificate: Certificate, state: State, output: Path
) -> tuple[dict[str, object], list[str]]:
    """Return what the reports of a result and of an agreed error have in common."""
    submission.tracker.count_certified()  # nodes may have dropped all other votes
    votes, conflicting = submission.tracker.votes, conflicts(submission.tracker)
    document: dict[str, object] = {
        **task_entry(submission.id, submission.tracker),
        "state": str(state),
        "attempt": certificate.attempt,
        "signers": list(certificate.signers),
        "votes": vote_entries(votes, certificate),
        "certificate": str(certificate_path(output)),
        "conflict": conflict_entries(conflicting),
    }
    lines = [
        f"{state:<12} task {submission.id}",
        *withdrawal_lines(submission.tracker),
        *dropped_lines(submission.tracker),
        *vote_lines(votes, certificate, client.network),
        *conflict_lines(conflicting, client.network),
        f"certificate  {certificate_path(output)}",
    ]
    return document, lines


def _error_report(
    client: Client, submission: Submission, error: GenerationFailed, output: Path
) -> TaskReport:
    write_certificates(error.certificate, conflicts(submission.tracker), output)
    document, lines = _certified(client, submission, error.certificate, State.AGREED_ERROR, output)
    failure = Failure(Exit.REJECTED, str(error))
    return TaskReport(
        document | {"code": error.code}, [f"{lines[0]}: {error.code}", *lines[1:]], failure
    )


def _disagreement_report(client: Client, submission: Submission, error: NoAgreement) -> TaskReport:
    votes = submission.tracker.votes
    document = {
        **task_entry(submission.id, submission.tracker),
        "state": str(error.state),
        "votes": vote_entries(votes, None),
        "conflict": [],
    }
    lines = [
        f"{error.state}  task {submission.id}",
        *withdrawal_lines(submission.tracker),
        *vote_lines(votes, None, client.network),
    ]
    return TaskReport(document, lines, Failure(Exit.NO_AGREEMENT, str(error)))


# Parts of a report


def task_entry(task_id: str, tracker: TaskTracker) -> dict[str, object]:
    """Return who asked for a task, None if no node has shown it, and whether they withdrew it.

    `votes_dropped` is the number of nodes that have dropped its votes.
    """
    return {
        "task": task_id,
        "requester": None if tracker.task is None else tracker.task.requester,
        "withdrawn": bool(tracker.withdrawal_peers),
        "votes_dropped": len(tracker.dropping_peers),
    }


def withdrawal_lines(tracker: TaskTracker) -> list[str]:
    """Return a line if the requester has withdrawn the task; a certificate stands nevertheless."""
    if not tracker.withdrawal_peers:
        return []
    effect = "" if tracker.settled is None else ", without effect: the task has a certificate"
    return [f"withdrawn by its requester{effect}"]


def dropped_lines(tracker: TaskTracker) -> list[str]:
    """Return a line if nodes have dropped the task's votes, as they do long after its end."""
    if not tracker.dropping_peers:
        return []
    count, asked = len(tracker.dropping_peers), len(tracker.answering_peers)
    rest = "none" if tracker.settled is None else "those of its certificate alone"
    shown = f"; {rest} can be shown" if tracker.has_only_certified_votes else ""
    return [f"votes dropped by {count} of {asked} nodes: the task ended long ago{shown}"]


def conflicts(tracker: TaskTracker) -> tuple[Certificate, ...]:
    """Return the valid certificates that contradict the first one that was seen."""
    # The tracker keeps one certificate per outcome, in the order in which they arrived.
    return tracker.certificates[1:]


def conflict_entries(conflicting: Sequence[Certificate]) -> list[dict[str, object]]:
    """Return the conflicting certificates whole: they prove that a majority is faulty."""
    return [
        {
            "outcome": certificate.votes[0].digest,
            "signers": list(certificate.signers),
            "certificate": certificate.document,
        }
        for certificate in conflicting
    ]


def conflict_lines(conflicting: Sequence[Certificate], network: Network) -> list[str]:
    """Return a line for each conflicting certificate."""
    return [
        f"CONFLICT  another valid certificate: outcome {certificate.votes[0].digest[:16]}.. "
        "signed by " + ", ".join(display_name(signer, network) for signer in certificate.signers)
        for certificate in conflicting
    ]


def vote_entries(
    votes: Sequence[VoteSummary], certificate: Certificate | None
) -> list[dict[str, object]]:
    """Return each vote; `dissent` marks an outcome that contradicts the certificate."""
    certified = None if certificate is None else certificate.votes[0].digest
    return [
        {
            "peer": vote.peer,
            "attempt": vote.attempt,
            "outcome": vote.outcome,
            "abstained": vote.abstained,
            "error": vote.error,
            "detail": vote.detail,
            "dissent": None not in (certified, vote.outcome) and vote.outcome != certified,
        }
        for vote in votes
    ]


def vote_lines(
    votes: Sequence[VoteSummary], certificate: Certificate | None, network: Network
) -> list[str]:
    """Return a line for each vote; DISSENT marks one that contradicts the certificate."""
    entries = vote_entries(votes, certificate)
    return [
        f"attempt {vote.attempt}  {display_name(vote.peer, network)}  {vote_text(vote)}"
        + ("  DISSENT" if entry["dissent"] else "")
        for vote, entry in zip(votes, entries, strict=True)
    ]


def vote_text(vote: VoteSummary) -> str:
    """Return a vote in words, on one line: a member's own detail may hold any character."""
    if vote.outcome is None:
        return f"abstained: {vote.abstained}"
    if vote.error is None:
        return f"voted {vote.outcome[:16]}.."
    return one_line(f"voted error {vote.error}: {vote.detail or 'no detail given'}")


def _audio_entries(result: Result, path: Path) -> list[dict[str, object]]:
    return [
        {
            "path": str(numbered(path, index)),
            "frames": len(waveform.audio),
            "channels": waveform.audio.shape[1],
            "sampling_rate": waveform.sampling_rate,
            "seconds": waveform.seconds,
        }
        for index, waveform in enumerate(result.waveforms)
    ]


def _score_paths(result: Result, path: Path) -> list[Path]:
    """Return the paths of the MIDI files of a pop2piano result."""
    return [numbered(path.with_suffix(".mid"), index) for index in range(len(result.scores))]


def _tokens_paths(result: Result, path: Path) -> list[Path]:
    """Return the paths of the tokens of a result that proves work."""
    return [tokens_path(path, index) for index in range(len(result.tokens))]


def _audio_lines(result: Result, path: Path) -> list[str]:
    scores = [f"midi         {score}" for score in _score_paths(result, path)]
    tokens = [f"tokens       {tokens}" for tokens in _tokens_paths(result, path)]
    return [*scores, *tokens] + [
        f"audio        {numbered(path, index)}  {waveform.seconds:.2f} s at "
        f"{waveform.sampling_rate} Hz, {waveform.audio.shape[1]} channel(s)"
        for index, waveform in enumerate(result.waveforms)
    ]
