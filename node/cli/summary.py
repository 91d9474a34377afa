"""What a task came to, as a document and as lines: votes, certificate, audio."""

from collections.abc import Sequence
from pathlib import Path

from node.cli.exit_codes import one_line
from node.cli.files import write
from node.cli.options import display_name
from node.client.result import Result, numbered
from node.sync.task_tracker import TaskTracker, VoteSummary
from protocol.consensus.certificate import Certificate
from protocol.network import Network


def certificate_path(audio: Path) -> Path:
    """Return where a song's certificate goes: beside it, `song.wav.certificate.json`."""
    return audio.with_name(f"{audio.name}.certificate.json")


def conflict_path(audio: Path, index: int = 0) -> Path:
    """Return where a certificate that contradicts a song's own goes: `song.wav.conflict.json`."""
    return numbered(audio.with_name(f"{audio.name}.conflict.json"), index)


def write_certificates(
    certificate: Certificate, others: Sequence[Certificate], audio: Path
) -> None:
    """Write the exact canonical bytes, as `helium verify` asks for, beside where `audio` goes."""
    write(certificate_path(audio), certificate.encode())
    for index, other in enumerate(others):
        write(conflict_path(audio, index), other.encode())


def conflicts(tracking: TaskTracker) -> tuple[Certificate, ...]:
    """Return the valid certificates that contradict the one that settled the task."""
    return tracking.certificates[1:]


def conflict_entries(others: Sequence[Certificate]) -> list[dict[str, object]]:
    """Return the contradicting certificates whole: they are what proves a faulty majority."""
    return [
        {
            "outcome": other.votes[0].digest,
            "signers": list(other.signers),
            "certificate": other.document,
        }
        for other in others
    ]


def conflict_lines(others: Sequence[Certificate], network: Network) -> list[str]:
    """Return a line for each contradicting certificate."""
    return [
        f"CONFLICT  another valid certificate: outcome {other.votes[0].digest[:16]}.. signed by "
        + ", ".join(display_name(signer, network) for signer in other.signers)
        for other in others
    ]


def votes(
    ballots: Sequence[VoteSummary], certificate: Certificate | None
) -> list[dict[str, object]]:
    """Return every vote; `dissent` where a revealed outcome contradicts the certificate."""
    agreed = None if certificate is None else certificate.votes[0].digest
    return [
        {
            "peer": ballot.peer,
            "attempt": ballot.attempt,
            "outcome": ballot.outcome,
            "abstained": ballot.abstained,
            "error": ballot.error,
            "detail": ballot.detail,
            "dissent": None not in (agreed, ballot.outcome) and ballot.outcome != agreed,
        }
        for ballot in ballots
    ]


def vote_lines(
    ballots: Sequence[VoteSummary], certificate: Certificate | None, network: Network
) -> list[str]:
    """Return a line for each vote, the dissenting ones named as such."""
    lines = []
    for ballot, vote in zip(ballots, votes(ballots, certificate), strict=True):
        mark = "  DISSENT" if vote["dissent"] else ""
        who = display_name(ballot.peer, network)
        lines.append(f"attempt {ballot.attempt}  {who}  {said(ballot)}{mark}")
    return lines


def said(ballot: VoteSummary) -> str:
    """Return what a member voted; its own words may hold anything that is text."""
    if ballot.outcome is None:
        return f"abstained: {ballot.abstained}"
    if ballot.error is None:
        return f"voted {ballot.outcome[:16]}.."
    return one_line(f"voted error {ballot.error}: {ballot.detail or 'no detail given'}")


def missing_votes(tracking: TaskTracker, attempt: int, committee: Sequence[str]) -> bool:
    """Whether members of an attempt's committee have not been seen to vote yet."""
    voted = {ballot.peer for ballot in tracking.votes if ballot.attempt == attempt}
    return not voted >= set(committee)


def audio_entries(result: Result, path: Path) -> list[dict[str, object]]:
    """Return what was written of each sequence."""
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


def score_paths(result: Result, path: Path) -> list[Path]:
    """Return where the MIDI files of a pop2piano task went."""
    return [numbered(path.with_suffix(".mid"), index) for index in range(len(result.scores))]


def audio_lines(result: Result, path: Path) -> list[str]:
    """Return a line for each sequence and each score."""
    scores = [f"midi         {score}" for score in score_paths(result, path)]
    return scores + [
        f"audio        {numbered(path, index)}  {waveform.seconds:.2f} s at "
        f"{waveform.sampling_rate} Hz, {waveform.audio.shape[1]} channel(s)"
        for index, waveform in enumerate(result.waveforms)
    ]
