"""The end of a task: files, JSON document, lines and exit code; in virtual time."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from soundfile import LibsndfileError

from node.cli.commands.tasks import describe_status
from node.cli.exit_codes import Exit, Failure
from node.cli.task_output import (
    TaskReport,
    conflict_path,
    explain_interrupt,
    vote_entries,
    vote_lines,
    vote_text,
    wait_and_write,
)
from node.client.client import Client
from node.client.result import check_file
from node.client.submission import Submission
from node.sync.task_tracker import UNKNOWN_TASK_SECONDS, UnknownTask, VoteSummary
from protocol.consensus.certificate import verify_bytes
from protocol.consensus.committee import committees
from protocol.wire.messages import Task
from tests.node.cli.certified import Certified
from tests.node.client.test_client import (
    COMMITTEE,
    MONO,
    NET,
    PAIR,
    STEREO,
    TASK,
    TOKENS,
    Fake,
    blobs_by_hash,
    outcome_of,
    proven_truth,
    truth_of,
    with_client,
)
from tests.node.sync.test_task_tracker import certify
from tests.support import fixtures

SONGS = outcome_of(STEREO, MONO)
SILENCE = outcome_of(*[np.zeros((10, 1), "<f4")] * 2)
PAIR_SIGNERS = truth_of(SONGS, PAIR)["certificate"]["votes"]
OTHER = certify(NET, PAIR, SILENCE, committees(NET, PAIR)[0][1:])


def honest(**more: Any) -> Fake:
    return Fake(**truth_of(SONGS, PAIR), blobs=blobs_by_hash(STEREO, MONO), **more)


def wait_for_task(output: Path, *fakes: Fake, task: Task = TASK) -> TaskReport:
    reports: list[TaskReport] = []

    async def test(client: Client) -> None:
        reports.append(await wait_and_write(client, client.follow(task.id), output))

    with_client(*fakes, test=test)
    return reports[0]


def test_tokens_are_written_beside_the_audio(tmp_path: Path) -> None:
    net, task, truth, blobs = proven_truth()
    output, reports = tmp_path / "song.wav", list[TaskReport]()

    async def test(client: Client) -> None:
        reports.append(await wait_and_write(client, client.follow(task.id), output))

    with_client(Fake(**truth, blobs=blobs), test=test, net=net)
    assert names(tmp_path) == {"song.wav", "song.wav.tokens", "song.wav.certificate.json"}
    assert (tmp_path / "song.wav.tokens").read_bytes() == TOKENS
    assert reports[0].document["tokens"] == [f"{output}.tokens"]
    assert f"tokens       {output}.tokens" in reports[0].lines


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_audio_and_certificate_are_written(tmp_path: Path) -> None:
    output = tmp_path / "song.wav"
    output.write_bytes(b"an older one")
    report = wait_for_task(output, honest(), task=PAIR)
    assert report.failure is None
    assert names(tmp_path) == {"song.wav", "song-2.wav", "song.wav.certificate.json"}
    assert verify_bytes(Path(str(report.document["certificate"])).read_bytes(), NET).task == PAIR
    assert [check_file(tmp_path / name, SONGS) for name in ("song.wav", "song-2.wav")] == [0, 1]
    assert report.document["conflict"] == []
    assert report.lines[0] == f"agreed       task {PAIR.id}"


def _fails_at_the_second(error: BaseException) -> Callable[..., None]:
    write, written = soundfile.write, list[str]()

    def failing(name: str, *arguments: Any, **options: Any) -> None:
        written.append(name)
        if len(written) == 2:
            raise error
        write(name, *arguments, **options)

    return failing


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LibsndfileError(2, "Error opening: "), "cannot be written: Error opening: System error"),
        (OSError(28, "No space left on device"), "cannot be written: No space left on device"),
        (AssertionError(), "cannot be written whole: disk full?"),
    ],
)
def test_a_failed_write_leaves_no_file(
    error: BaseException, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soundfile.write", _fails_at_the_second(error))
    with pytest.raises(Failure) as raised:
        wait_for_task(tmp_path / "song.wav", honest(), task=PAIR)
    assert raised.value.exit_code == Exit.FAULT
    assert f"{tmp_path / 'song.wav'}: {reason}" in raised.value.message
    assert names(tmp_path) == set()


def test_an_agreed_error_writes_its_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake(**truth_of({"error": "non-finite-output"}) | {"state": "agreed-error"})
    report = wait_for_task(tmp_path / "song.wav", fake)
    capsys.readouterr()
    with pytest.raises(Failure, match="non-finite-output") as raised:
        report.print(as_json=True)
    assert raised.value.exit_code == Exit.REJECTED
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["code"]) == ("agreed-error", "non-finite-output")
    assert document["signers"] == sorted(COMMITTEE)
    assert names(tmp_path) == {"song.wav.certificate.json"}
    content = (tmp_path / "song.wav.certificate.json").read_bytes()
    assert verify_bytes(content, NET).outcome == {"error": "non-finite-output"}
    assert report.lines[0] == f"agreed-error task {TASK.id}: non-finite-output"


def failing(detail: str | None) -> Fake:
    """A node that shows an agreed error and all its votes."""
    trace = {} if detail is None else {"detail": detail}
    certificate = certify(NET, TASK, {"error": "no-notes"}, trace=trace)
    envelopes = [
        TASK.envelope.document(),
        *(vote.envelope.document() for vote in certificate.votes),
    ]
    return Fake(state="agreed-error", certificate=certificate.document, envelopes=envelopes)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("no beat: too short", "no beat: too short"),
        ("\u202egood\u2028news \u0301", " good news \u0301"),
        (None, "no detail given"),
    ],
)
def test_an_agreed_error_shows_each_members_detail(
    detail: str | None, expected: str, tmp_path: Path
) -> None:
    """The line is printable whatever a member wrote; the document has the exact text."""
    report = wait_for_task(tmp_path / "song.wav", failing(detail))
    lines = [line for line in report.lines if line.startswith("attempt")]
    assert len(lines) == len(COMMITTEE)
    assert all(line.endswith(f"  voted error no-notes: {expected}") for line in lines), lines
    votes: Any = report.document["votes"]
    assert {(vote["error"], vote["detail"]) for vote in votes} == {("no-notes", detail)}


def test_status_shows_an_agreed_error_with_details() -> None:
    async def test(client: Client) -> None:
        tracker = client.follow(TASK.id).tracker
        document, lines = describe_status(TASK.id, tracker, await tracker.refresh(), client)
        assert lines[0] == f"task {TASK.id}: certified: error no-notes"
        assert sum(line.endswith("  voted error no-notes: too short") for line in lines) == 3
        votes: Any = document["votes"]
        assert {vote["detail"] for vote in votes} == {"too short"}

    with_client(failing("too short"), test=test)


def test_a_result_is_fetched_although_its_votes_were_dropped(tmp_path: Path) -> None:
    node = honest()
    node.envelopes, node.state = [], "agreed"
    report = wait_for_task(tmp_path / "song.wav", node, task=PAIR)
    assert report.failure is None
    assert report.document["votes_dropped"] == 1
    assert report.lines[1] == (
        "votes dropped by 1 of 1 nodes: the task ended long ago; those of its certificate alone can"
        " be shown"
    )
    assert sum(line.startswith("attempt 0 ") for line in report.lines) == len(PAIR_SIGNERS)


def test_status_says_that_votes_were_dropped() -> None:
    async def test(client: Client) -> None:
        tracker = client.follow(TASK.id).tracker
        document, lines = describe_status(TASK.id, tracker, await tracker.refresh(), client)
        assert (document["votes_dropped"], document["votes"]) == (1, [])
        assert lines[0] == f"task {TASK.id}: no certificate"
        expected = "votes dropped by 1 of 1 nodes: the task ended long ago; none can be shown"
        assert lines[1] == expected
        assert lines[2].endswith("says expired, attempt 0")

    with_client(Fake(envelopes=[], state="expired"), test=test)


def test_a_task_that_was_dropped_without_a_certificate_cannot_be_fetched(tmp_path: Path) -> None:
    """It is told soon, not after the time that a silent node gets."""

    async def test(client: Client) -> None:
        began = client.clock.now()
        with pytest.raises(UnknownTask, match="nodes that report expired have dropped its votes"):
            await wait_and_write(client, client.follow(TASK.id), tmp_path / "song.wav")
        assert client.clock.now() - began < UNKNOWN_TASK_SECONDS + 2

    with_client(Fake(envelopes=[], state="expired"), test=test)


def test_no_agreement_writes_nothing(tmp_path: Path) -> None:
    report = wait_for_task(tmp_path / "song.wav", Fake(state="inconclusive"))
    assert report.failure is not None
    assert report.failure.exit_code == Exit.NO_AGREEMENT
    assert report.document["conflict"] == []
    assert names(tmp_path) == set()


def with_conflict(test: Callable[[Client, Submission], Awaitable[None]]) -> None:
    """Show a second valid certificate after the first one has ended the task."""
    second = Fake(state="agreed", certificate=OTHER.document, answers=False)

    async def settled(client: Client) -> None:
        submission = client.follow(PAIR.id)
        await submission.tracker.certificate()
        second.answers = True
        await test(client, submission)

    with_client(honest(), second, test=settled)


def assert_conflict_shown(document: Mapping[str, Any], lines: Sequence[str]) -> None:
    [entry] = document["conflict"]
    assert entry["outcome"] == OTHER.votes[0].digest
    assert entry["signers"] == list(OTHER.signers)
    assert entry["certificate"] == OTHER.document
    [line] = [line for line in lines if line.startswith("CONFLICT")]
    expected = (
        f"CONFLICT  another valid certificate: outcome {OTHER.votes[0].digest[:16]}.. signed by"
    )
    assert line.startswith(expected)
    assert all(signer[-6:] in line for signer in OTHER.signers)


def test_a_conflicting_certificate_is_shown_and_written(tmp_path: Path) -> None:
    async def test(client: Client, submission: Submission) -> None:
        report = await wait_and_write(client, submission, tmp_path / "song.wav")
        assert_conflict_shown(report.document, report.lines)

    with_conflict(test)
    assert (tmp_path / "song.wav.conflict.json").read_bytes() == OTHER.encode()
    content = (tmp_path / "song.wav.certificate.json").read_bytes()
    assert verify_bytes(content, NET).outcome == SONGS


def test_status_shows_a_conflict() -> None:
    async def test(client: Client, submission: Submission) -> None:
        statuses = await submission.tracker.refresh()
        assert_conflict_shown(*describe_status(PAIR.id, submission.tracker, statuses, client))

    with_conflict(test)


def test_each_conflicting_certificate_has_a_file() -> None:
    files = [conflict_path(Path("a/song.wav"), index).name for index in range(2)]
    assert files == ["song.wav.conflict.json", "song.wav.conflict-2.json"]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_an_interrupt_names_the_command_that_resumes(error: BaseException) -> None:
    with pytest.raises(Failure) as raised, explain_interrupt(TASK.id):
        raise error
    assert raised.value.exit_code == 130
    assert raised.value.message == f"interrupted; the task goes on: helium fetch {TASK.id}"


def test_an_interrupt_names_the_command_that_cancels_if_the_key_is_kept() -> None:
    with pytest.raises(Failure) as raised, explain_interrupt(TASK.id, Path("me.pem")):
        raise KeyboardInterrupt
    assert raised.value.message.endswith(f", or helium cancel {TASK.id} --key me.pem")


def withdrawn() -> Fake:
    """A node that shows a withdrawn task, and the abstentions that follow from it."""
    votes = [
        fixtures.abstain(NET, TASK, member, "withdrawn", attempt)
        for attempt, committee in enumerate(committees(NET, TASK))
        for member in committee
    ]
    messages = [TASK, fixtures.withdraw(NET, TASK), *votes]
    return Fake(state="inconclusive", envelopes=[m.envelope.document() for m in messages])


def test_a_withdrawn_task_is_shown_with_its_abstentions(tmp_path: Path) -> None:
    report = wait_for_task(tmp_path / "song.wav", withdrawn())
    assert report.failure is not None
    assert report.failure.exit_code == Exit.NO_AGREEMENT
    assert report.document["withdrawn"] is True
    assert report.document["requester"] == fixtures.peer(1000)
    assert report.document["state"] == "inconclusive"
    assert report.lines[:2] == [f"inconclusive  task {TASK.id}", "withdrawn by its requester"]
    assert sum(line.endswith("  abstained: withdrawn") for line in report.lines) == 7


def test_status_shows_the_requester_and_the_withdrawal() -> None:
    async def test(client: Client) -> None:
        tracker = client.follow(TASK.id).tracker
        document, lines = describe_status(TASK.id, tracker, await tracker.refresh(), client)
        assert (document["requester"], document["withdrawn"]) == (fixtures.peer(1000), True)
        assert lines[1:3] == [f"requester {fixtures.peer(1000)}", "withdrawn by its requester"]
        votes: Any = document["votes"]
        assert {vote["abstained"] for vote in votes} == {"withdrawn"}

    with_client(withdrawn(), test=test)


def test_a_withdrawal_of_a_certified_task_is_shown_as_without_effect() -> None:
    fake = failing("too short")
    fake.envelopes.append(fixtures.withdraw(NET, TASK).envelope.document())

    async def test(client: Client) -> None:
        tracker = client.follow(TASK.id).tracker
        document, lines = describe_status(TASK.id, tracker, await tracker.refresh(), client)
        assert (document["certified"], document["withdrawn"]) == (True, True)
        assert lines[2] == "withdrawn by its requester, without effect: the task has a certificate"

    with_client(fake, test=test)


def test_a_result_names_its_requester(tmp_path: Path) -> None:
    report = wait_for_task(tmp_path / "song.wav", honest(), task=PAIR)
    assert report.document["requester"] == fixtures.peer(1000)
    assert report.document["withdrawn"] is False


def test_dissent_is_an_outcome_that_contradicts_the_certificate(certified: Certified) -> None:
    first, second, third = certified.certificate.signers
    agreed = certified.certificate.votes[0].digest
    votes = [
        VoteSummary(first, 0, agreed, None),
        VoteSummary(second, 0, "ff" * 32, None),
        VoteSummary(third, 0, None, "busy"),
    ]
    assert [v["dissent"] for v in vote_entries(votes, certified.certificate)] == [
        False,
        True,
        False,
    ]
    assert not any(v["dissent"] for v in vote_entries(votes, None))
    lines = vote_lines(votes, certified.certificate, certified.network)
    assert [line.endswith("DISSENT") for line in lines] == [False, True, False]
    assert lines[2].endswith("abstained: busy")


def test_a_vote_in_words() -> None:
    peer, outcome = "12D3KooW" + "x" * 44, "ab" * 32
    assert vote_text(VoteSummary(peer, 0, outcome, None)) == "voted abababababababab.."
    assert vote_text(VoteSummary(peer, 0, None, "busy")) == "abstained: busy"
    failed = VoteSummary(peer, 0, outcome, None, "no-notes", "a\u202eb")
    assert vote_text(failed) == "voted error no-notes: a b"
    assert vote_text(VoteSummary(peer, 0, outcome, None, "no-notes")) == (
        "voted error no-notes: no detail given"
    )
