"""`helium explain`: why a member was outvoted, level by level."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from node.cli import options
from node.cli.commands.tasks import task_argument
from node.cli.exit_codes import one_line, usage
from node.cli.options import display_name
from node.cli.replay import Replay, Replayer
from node.cli.session import resolve_target, run_with_client
from node.cli.task_output import dropped_lines
from node.client.client import Client
from node.client.result import AudioMismatch, waveform_of
from node.explain.findings import (
    Activity,
    DifferingWaveform,
    Finding,
    Reference,
    activity_of,
    attempts_with_votes,
    compare,
    differing_waveforms,
    find_reference,
)
from node.explain.verdict import reason
from node.explain.waveform_diff import Samples, WaveformDifference, compare_waveforms
from node.rpc.codec import ProtocolViolation
from node.sync.blob_download import BlobUnavailable
from node.sync.task_tracker import TaskTracker
from protocol.consensus.conduct import VoteOutcome
from protocol.manifest import blob_of, outputs_of
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Reveal, Task

EPILOG = """\b
Examples:
  helium explain 1b69885465d833fc7e9b32d356a60a7453a84092fe4b5c75f02cd451c2b5764e
  helium explain 1b69885465d833fc7e9b32d356a60a7453a84092fe4b5c75f02cd451c2b5764e --member bob

\b
Output, for each member:
  runtime   what it computed with, compared with its class's definition
  weights   the model's digest, compared with the network document
  tokens    the first step at which the generated tokens differ
  work      tokens and work of the outcome, for a task that proves work
  waveform  the first differing chunk of the manifest
  samples   the first differing frame, how many samples differ, the largest difference
  replay    what this machine computes from the member's tokens, where the task proves work
  so        what the first differing level points to
Each level is the same, DIFFERS or is unknown. The first line says what the member did: agreed,
dissented, late, abstained, silent (it did not commit), withheld (it committed and did not reveal,
though it was due), equivocated, or unsettled if no outcome is certified. INCONSTANT marks a member
that revealed different outcomes in different attempts.
"""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one member did, where its outcome differs from the reference, and why."""

    activity: Activity
    findings: Sequence[Finding]
    waveforms: Sequence[DifferingWaveform]
    reason: str


@click.command(epilog=EPILOG)
@task_argument
@click.option(
    "--member",
    metavar="PEER",
    help="Only this member: its peer id, the end of its peer id, or its operator.",
)
@options.models_dir
@click.option("--no-replay", is_flag=True, help="Do not compute anything on this machine.")
@options.client
@options.as_json
def explain(
    task: str,
    member: str | None,
    models_dir: tuple[Path, ...],
    no_replay: bool,
    network: Path | None,
    peers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show why each member that did not agree on TASK was outvoted, level by level.

    TASK is a task id, or its first 8 characters or more. Each member's outcome is compared with the
    certified one. If the waveforms differ, both are fetched and compared sample by sample. Only the
    member itself has its waveform, so give its address with --peer too. Runtime, weights and tokens
    are the member's own statements. Without a certificate, the outcome that most members revealed
    takes its place.

    Where the task proves work, this machine replays the tokens of each outcome and says which one
    is right, or the first token that the task does not draw. That needs the model on this disk.
    """

    async def action(client: Client) -> None:
        id_ = await client.find_task(task)
        folders = None if no_replay else models_dir
        document, lines = await explain_task(client, id_, member, folders)
        options.say(document, lines, as_json)

    run_with_client(resolve_target(network, peers), action)


async def explain_task(
    client: Client, task: str, member: str | None = None, folders: Sequence[Path] | None = None
) -> tuple[dict[str, object], list[str]]:
    """Return the explanations of a task's members as the JSON document and as lines.

    `member` None selects those that did not agree. Outcomes are replayed with the models of
    `folders` and the shipped ones; None replays nothing. Raises UnknownTask if no node knows the
    task.
    """
    tracker = client.follow(task).tracker
    await tracker.refresh()
    # A node that joined late has some votes only inside the certificate.
    tracker.count_certified()
    if tracker.task is None:
        raise tracker.unknown()
    reference = find_reference(tracker.vote_sets, tracker.settled)
    peer = None if member is None else _find_member(member, tracker, client.network)
    activities = [
        activity
        for activity in _activities(tracker, [peer] if peer else tracker.committee, reference)
        if peer or _disagrees(activity, reference)
    ]
    if tracker.has_only_certified_votes:  # of the others nothing is known any more
        activities = [activity for activity in activities if activity.reveal is not None]
    if peer and not activities:
        known = "it is in no committee of an attempt that has begun"
        if tracker.has_only_certified_votes:
            known = "its votes were dropped, as the task ended long ago; the certificate has none"
        raise usage(f"--member {member}: {known}")
    explanations = [
        await _explain_member(client, tracker.task, activity, reference) for activity in activities
    ]
    replays = await _replay(client, tracker.task, activities, reference, folders)
    lines = _lines(explanations, reference, replays, client.network)
    if dropped := dropped_lines(tracker):
        if tracker.has_only_certified_votes and not explanations:
            lines.pop()  # that every member agreed
        lines += dropped
    # Details quote traces, which may hold any character.
    document = _document(task, explanations, reference, replays)
    document["votes_dropped"] = len(tracker.dropping_peers)
    return document, [one_line(line) for line in lines]


async def _replay(
    client: Client,
    task: Task,
    activities: Sequence[Activity],
    reference: Reference | None,
    folders: Sequence[Path] | None,
) -> dict[str, Replay]:
    """Return what a replay of each outcome came to, by the outcome's digest."""
    holders: dict[str, list[str]] = {}
    outcomes: dict[str, Document] = {}
    if reference is not None and activities:
        holders[reference.digest] = list(reference.supporters)
        outcomes[reference.digest] = reference.outcome
    for activity in activities:
        if (reveal := activity.reveal) is not None:
            holders.setdefault(reveal.digest, []).append(reveal.signer)
            outcomes[reveal.digest] = reveal.outcome
    if folders is None:
        return {}
    replays = {}
    with Replayer(client.network, task, folders) as replayer:
        for digest, outcome in outcomes.items():
            replay = await replayer.replay(client, outcome, holders[digest])
            if replay is not None:
                replays[digest] = replay
    return replays


def _find_member(name: str, tracker: TaskTracker, network: Network) -> str:
    """Return the only member of the task's committees with this id, end of id, or operator."""
    matches = [
        peer
        for peer in tracker.committee
        # Lines show the end of a peer id, so the end is accepted as a name.
        if peer.endswith(name) or network.roster[peer].operator == name
    ]
    if len(matches) != 1:
        choices = ", ".join(display_name(peer, network) for peer in matches or tracker.committee)
        problem = "names several members" if matches else "is not in a committee of the task"
        raise usage(f"--member {name!r} {problem}: choose one of {choices}")
    return matches[0]


def _activities(
    tracker: TaskTracker, peers: Iterable[str], reference: Reference | None
) -> list[Activity]:
    # Agreed, dissented and late are relative to a certified outcome only.
    digest = reference.digest if reference is not None and reference.certified else None
    vote_sets = attempts_with_votes(tracker.vote_sets)
    activities = (activity_of(vote_sets, peer, digest) for peer in peers)
    return [activity for activity in activities if activity is not None]


def _disagrees(activity: Activity, reference: Reference | None) -> bool:
    if reference is None or activity.reveal is None or activity.inconstant:
        return True
    # The same outcome can still be late, or one of two contradicting votes.
    if activity.reveal.digest != reference.digest:
        return True
    return activity.conduct in (VoteOutcome.LATE, VoteOutcome.EQUIVOCATED)


async def _explain_member(
    client: Client, task: Task, activity: Activity, reference: Reference | None
) -> Explanation:
    reveal = activity.reveal
    if reference is None or reveal is None:
        return Explanation(activity, (), (), reason(activity, reference, (), ()))
    findings = compare(task, client.network, reference, reveal)
    waveforms = [
        await _compare_samples(client, waveform, reference, reveal)
        for waveform in differing_waveforms(reference.outcome, reveal.outcome)
    ]
    text = reason(activity, reference, findings, waveforms)
    return Explanation(activity, findings, waveforms, text)


async def _compare_samples(
    client: Client, waveform: DifferingWaveform, reference: Reference, reveal: Reveal
) -> DifferingWaveform:
    """Fetch both waveforms and compare them; `missing` says why one could not be fetched."""
    index = waveform.output
    try:
        # Every supporter has the reference; only the member itself has its own waveform.
        expected = await _fetch_samples(client, reference.outcome, index, reference.supporters)
        actual = await _fetch_samples(client, reveal.outcome, index, (reveal.signer,))
    except (BlobUnavailable, ProtocolViolation, AudioMismatch) as error:
        return replace(waveform, missing=str(error))
    return replace(waveform, difference=compare_waveforms(expected, actual))


async def _fetch_samples(
    client: Client, outcome: Document, index: int, holders: Sequence[str]
) -> Samples:
    output = outputs_of(outcome)[index]
    return waveform_of(await client.fetch_blob(blob_of(output), holders), output).audio


def _document(
    task: str,
    explanations: Sequence[Explanation],
    reference: Reference | None,
    replays: Mapping[str, Replay],
) -> dict[str, object]:
    return {
        "task": task,
        "certified": reference is not None and reference.certified,
        "compared_with": None if reference is None else reference.digest,
        "supporters": [] if reference is None else list(reference.supporters),
        "members": [_member_entry(explanation) for explanation in explanations],
        "replays": {digest: asdict(replay) for digest, replay in replays.items()},
    }


def _member_entry(explanation: Explanation) -> dict[str, object]:
    activity = explanation.activity
    return {
        "peer": activity.peer,
        "attempt": activity.attempt,
        "conduct": str(activity.conduct),
        "inconstant": activity.inconstant,
        "outcome": activity.reveal.digest if activity.reveal else None,
        "abstained": activity.abstained or None,
        "levels": [asdict(finding) for finding in explanation.findings],
        "waveforms": [asdict(waveform) for waveform in explanation.waveforms],
        "reason": explanation.reason,
    }


def _lines(
    explanations: Sequence[Explanation],
    reference: Reference | None,
    replays: Mapping[str, Replay],
    network: Network,
) -> list[str]:
    if reference is None:
        head = "no outcome has more members than another: there is nothing to compare with"
    else:
        kind = "certified" if reference.certified else "NOT certified; what most members revealed"
        names = ", ".join(display_name(peer, network) for peer in reference.supporters)
        head = f"compared with {reference.digest[:16]}.., {kind}: {names}"
    lines = [head]
    if reference is not None:
        lines += _replay_lines(replays.get(reference.digest))
    for explanation in explanations:
        lines += _member_lines(explanation, replays, network)
    return lines if explanations else [*lines, "every member agreed"]


def _replay_lines(replay: Replay | None) -> list[str]:
    return [] if replay is None else [f"{'replay':<10} {_MARKS[replay.equal]:<8} {replay}"]


def _member_lines(
    explanation: Explanation, replays: Mapping[str, Replay], network: Network
) -> list[str]:
    activity = explanation.activity
    replay = replays.get(activity.reveal.digest) if activity.reveal else None
    name = display_name(activity.peer, network)
    revealed = f"revealed {activity.reveal.digest[:16]}..  " if activity.reveal else ""
    return [
        f"{name}  attempt {activity.attempt}  {revealed}{activity.conduct}"
        + ("  INCONSTANT" if activity.inconstant else ""),
        *(f"{f.level:<10} {_MARKS[f.same]:<8} {f.detail}" for f in explanation.findings),
        *(f"{'samples':<10} {_samples(waveform)}" for waveform in explanation.waveforms),
        *_replay_lines(replay),
        f"{'so':<10} {explanation.reason}",
    ]


_MARKS = {True: "same", False: "DIFFERS", None: "unknown"}


def _samples(waveform: DifferingWaveform) -> str:
    prefix = f"output {waveform.output}: " if waveform.output else ""
    if waveform.difference is None:
        return f"{'unknown':<8} {prefix}{waveform.missing or 'equal'}"
    difference = waveform.difference
    seconds = difference.first / waveform.sampling_rate
    counts = f"{difference.differing} of {difference.samples} differ"
    return (
        f"{'DIFFERS':<8} {prefix}first at {seconds:.4f} s, frame {difference.first}; "
        f"{counts}; {_size(difference)}"
    )


def _size(difference: WaveformDifference) -> str:
    if difference.greatest is None or difference.rms is None:
        return "not measurable: a sample is not a finite number"
    size = f"largest difference {difference.greatest:.3g}, RMS {difference.rms:.3g}"
    if difference.relative_db is not None and math.isfinite(difference.relative_db):
        size += f" ({difference.relative_db:+.1f} dB against the sound)"
    return size
