"""`helium explain`: why a member was outvoted, level by level."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from node.cli import options
from node.cli.commands.tasks import task_argument
from node.cli.exit_codes import one_line, usage
from node.cli.options import display_name
from node.cli.session import resolve_target, run_with_client
from node.client.client import Client
from node.client.result import AudioMismatch, waveform_of
from node.explain.findings import (
    Finding,
    Part,
    Reference,
    Subject,
    attempts_with_votes,
    findings,
    parts,
    reference_of,
    subject_of,
)
from node.explain.verdict import reason
from node.explain.waveform_diff import Difference, difference
from node.rpc.client import ProtocolViolation
from node.sync.blob_download import BlobUnavailable
from node.sync.task_tracker import TaskTracker, UnknownTask
from protocol.consensus.conduct import VoteOutcome
from protocol.manifest import blobs_of, outputs_of
from protocol.network import Network
from protocol.wire.messages import Reveal, Task

EPILOG = """\b
Examples:
  helium explain 1b69885465d833fc7e9b32d356a60a7453a84092fe4b5c75f02cd451c2b5764e
  helium explain 1b69885465d833fc7e9b32d356a60a7453a84092fe4b5c75f02cd451c2b5764e --member bob
"""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one member's part in a task was, where it parts from the others, and what of."""

    subject: Subject
    findings: Sequence[Finding]
    parts: Sequence[Part]
    reason: str


@click.command(epilog=EPILOG)
@task_argument
@click.option(
    "--member",
    metavar="PEER",
    help="Only this one: its peer id, the end of it, or its operator.",
)
@options.client
@options.as_json
def explain(
    task: str,
    member: str | None,
    network: Path | None,
    peers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show why each member that did not agree on TASK was outvoted, level by level.

    What it revealed is compared with what was certified: runtime, weights, tokens, waveform. Where
    the waveforms differ, both are fetched and compared sample by sample; its own can be had from
    the member alone, so name it with --peer too. Runtime, weights and tokens are what each member
    says of itself. Where nothing was certified, it is compared with what most members revealed.
    """

    async def action(client: Client) -> None:
        document, lines = await explained(client, task, member)
        options.say(document, lines, as_json)

    run_with_client(resolve_target(network, peers), action)


async def explained(
    client: Client, task: str, member: str | None = None
) -> tuple[dict[str, object], list[str]]:
    """Return, as a document and as lines, why members did not agree: all of them or one."""
    tracking = client.follow(task).tracker
    await tracking.refresh()
    tracking.count_certified()
    if tracking.task is None:
        raise UnknownTask(f"no connected node knows the task {task}")
    ours = reference_of(tracking.rounds, tracking.settled)
    named = None if member is None else _member(member, tracking, client.network)
    found = [
        await _explained(client, tracking.task, subject, ours)
        for subject in _subjects(tracking, [named] if named else tracking.committee, ours)
        if named or _disagrees(subject, ours)
    ]
    if named and not found:
        raise usage(f"--member {member}: no attempt in whose committee it is has begun")
    lines = _lines(found, ours, client.network)
    return _document(task, found, ours), [one_line(line) for line in lines]


def _member(wanted: str, tracking: TaskTracker, network: Network) -> str:
    """Return the one member of the task's committees that is meant."""
    found = [
        peer
        for peer in tracking.committee
        if peer.endswith(wanted) or network.roster[peer].operator == wanted
    ]
    if len(found) != 1:
        known = ", ".join(display_name(peer, network) for peer in found or tracking.committee)
        what = "names no single member" if found else "is not in a committee of the task"
        raise usage(f"--member {wanted!r} {what}: {known}")
    return found[0]


def _subjects(
    tracking: TaskTracker, peers: Iterable[str], ours: Reference | None
) -> Iterable[Subject]:
    digest = ours.digest if ours is not None and ours.certified else None
    rounds = attempts_with_votes(tracking.rounds)
    found = (subject_of(rounds, peer, digest) for peer in peers)
    return [subject for subject in found if subject is not None]


def _disagrees(subject: Subject, ours: Reference | None) -> bool:
    if ours is None or subject.reveal is None or subject.reveal.digest != ours.digest:
        return True
    return subject.conduct in (VoteOutcome.LATE, VoteOutcome.EQUIVOCATED)


async def _explained(
    client: Client, task: Task, subject: Subject, ours: Reference | None
) -> Explanation:
    if ours is None or subject.reveal is None:
        return Explanation(subject, (), (), reason(subject, ours, (), ()))
    found = findings(task, client.network, ours, subject.reveal)
    compared = [
        await _compared(client, part, ours, subject.reveal)
        for part in parts(ours.outcome, subject.reveal.outcome)
    ]
    return Explanation(subject, found, compared, reason(subject, ours, found, compared))


async def _compared(client: Client, part: Part, ours: Reference, theirs: Reveal) -> Part:
    """Fetch both waveforms and compare them; the part says so if one is not to be had."""
    try:
        one, other = [
            waveform_of(
                await client.fetch_blob(blobs_of(outcome)[part.output], holders),
                outputs_of(outcome)[part.output],
            ).audio
            for outcome, holders in (
                (ours.outcome, ours.supporters),
                (theirs.outcome, (theirs.signer,)),
            )
        ]
    except (BlobUnavailable, ProtocolViolation, AudioMismatch) as error:
        return replace(part, missing=str(error))
    return replace(part, difference=difference(one, other))


def _document(
    task: str, explained: Sequence[Explanation], ours: Reference | None
) -> dict[str, object]:
    return {
        "task": task,
        "certified": ours is not None and ours.certified,
        "compared_with": None if ours is None else ours.digest,
        "supporters": [] if ours is None else list(ours.supporters),
        "members": [
            {
                "peer": each.subject.peer,
                "attempt": each.subject.attempt,
                "conduct": str(each.subject.conduct),
                "outcome": each.subject.reveal.digest if each.subject.reveal else None,
                "abstained": each.subject.abstained or None,
                "levels": [asdict(finding) for finding in each.findings],
                "waveforms": [asdict(part) for part in each.parts],
                "reason": each.reason,
            }
            for each in explained
        ],
    }


def _lines(explained: Sequence[Explanation], ours: Reference | None, network: Network) -> list[str]:
    if ours is None:
        head = "no outcome has more members than another: there is nothing to compare with"
    else:
        kind = "certified" if ours.certified else "NOT certified; what most members revealed"
        names = ", ".join(display_name(peer, network) for peer in ours.supporters)
        head = f"compared with {ours.digest[:16]}.., {kind}: {names}"
    lines = [head, *(line for each in explained for line in _member_lines(each, network))]
    return lines if explained else [*lines, "every member agreed"]


def _member_lines(each: Explanation, network: Network) -> list[str]:
    subject = each.subject
    said = f"revealed {subject.reveal.digest[:16]}..  " if subject.reveal else ""
    name = display_name(subject.peer, network)
    return [
        f"{name}  attempt {subject.attempt}  {said}{subject.conduct}",
        *(f"{f.level:<10} {_MARKS[f.same]:<8} {f.detail}" for f in each.findings),
        *(f"{'samples':<10} {_samples(part)}" for part in each.parts),
        f"{'so':<10} {each.reason}",
    ]


_MARKS = {True: "same", False: "DIFFERS", None: "unknown"}


def _samples(part: Part) -> str:
    where = f"output {part.output}: " if part.output else ""
    if part.difference is None:
        return f"{'unknown':<8} {where}{part.missing or 'equal'}"
    seconds = part.difference.first / part.sampling_rate
    return f"{'DIFFERS':<8} {where}first at {seconds:.4f} s, {_said(part.difference)}"


def _said(found: Difference) -> str:
    size = "they cannot be measured"
    if found.greatest is not None and found.rms is not None:
        size = f"largest difference {found.greatest:.3g}, RMS {found.rms:.3g}"
        if found.relative_db is not None and math.isfinite(found.relative_db):
            size += f" ({found.relative_db:+.1f} dB against the sound)"
    return f"frame {found.first}; {found.differing} of {found.samples} differ; {size}"
