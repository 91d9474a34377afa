"""`helium explain` over the client: votes and waveforms that nodes serve."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from node.cli.commands.explain import explain_task
from node.cli.exit_codes import Failure
from node.client.client import Client
from node.sync.task_tracker import UnknownTask
from protocol.consensus.certificate import assemble
from protocol.consensus.committee import committees
from protocol.manifest import CHUNK_BYTES
from protocol.wire.messages import Message, Reveal
from tests.node.cli.conftest import Files, Helium
from tests.node.client.test_client import Fake, outcome_of, with_client
from tests.support import fixtures

NET = fixtures.network()
TASK = fixtures.task(NET, deadline=60)
A, B, C = committees(NET, TASK)[0]
SOUND = np.random.default_rng(1).uniform(-1, 1, (700, 1)).astype("<f4")
QUIET = (SOUND * np.float32(0.9)).astype("<f4")
TRUTH, ALTERED = outcome_of(SOUND), outcome_of(QUIET)
BLOCKS = ["0" * 16, "1" * 16]
TRACE: dict[str, Any] = {
    "runtime": {"device": "cpu", "torch": "2.13.0"},
    "weights": "d" * 64,
    "tokens": [BLOCKS],
    "seconds": 1,
}


def revealed(member: str, outcome: dict[str, Any], **changes: Any) -> Reveal:
    commits = {m: fixtures.commitment_of(TASK, m, TRUTH) for m in (A, B, C)}
    commits[member] = fixtures.commitment_of(TASK, member, outcome)
    body = fixtures.reveal(NET, TASK, member, commits, outcome).envelope.body
    vote = fixtures.signed_by(NET, {**body, "trace": {**TRACE, **changes}}, member)
    assert isinstance(vote, Reveal)
    return vote


HONEST = [revealed(A, TRUTH), revealed(B, TRUTH)]


def node(*votes: Message, **changes: Any) -> Fake:
    """A node that has the task and votes, and serves the honest waveform."""
    envelopes = [message.envelope.document() for message in (TASK, *votes)]
    served = {hashlib.sha256(SOUND.tobytes()).hexdigest(): SOUND.tobytes()}
    return Fake(envelopes=envelopes, blobs=served, state="agreed", **changes)


def explain(*nodes: Fake, member: str | None = None) -> tuple[dict[str, Any], list[str]]:
    explanations: list[tuple[dict[str, Any], list[str]]] = []

    async def test(client: Client) -> None:
        explanations.append(await explain_task(client, TASK.id, member))

    with_client(*nodes, test=test)
    return explanations[0]


def serving(fake: Fake, *sounds: Any) -> Fake:
    for sound in sounds:
        fake.blobs[hashlib.sha256(sound.tobytes()).hexdigest()] = sound.tobytes()
    return fake


def test_a_dissenting_waveform_is_compared_sample_by_sample() -> None:
    document, lines = explain(serving(node(*HONEST, revealed(C, ALTERED)), QUIET))
    json.dumps(document)
    assert document["certified"] is True
    assert sorted(document["supporters"]) == sorted((A, B))
    (member,) = document["members"]
    assert (member["peer"], member["conduct"], member["attempt"]) == (C, "dissented", 0)
    levels = {level["level"]: level["same"] for level in member["levels"]}
    assert levels == {"runtime": True, "weights": True, "tokens": True, "waveform": False}
    (waveform,) = member["waveforms"]
    assert waveform["difference"]["first"] == 0
    assert waveform["difference"]["relative_db"] == pytest.approx(-20, abs=1e-3)
    assert waveform["difference"]["differing"] == len(SOUND)
    assert "or an altered result" in member["reason"]
    assert lines[-1].endswith(member["reason"])
    assert any("largest difference" in line and "-20.0 dB" in line for line in lines)


def test_votes_of_the_certificate_count() -> None:
    certificate = assemble(TASK, 0, HONEST, NET)
    document, _ = explain(node(revealed(C, ALTERED), certificate=certificate.document))
    assert document["certified"] is True
    assert [member["peer"] for member in document["members"]] == [C]


def test_a_waveform_that_no_node_serves_is_missing() -> None:
    document, lines = explain(node(*HONEST, revealed(C, ALTERED)))
    (waveform,) = document["members"][0]["waveforms"]
    assert waveform["difference"] is None
    assert "unknown-blob" in waveform["missing"]
    assert any("unknown-blob" in line for line in lines)
    assert "or an altered result" in lines[-1]


def test_wrong_bytes_are_not_compared() -> None:
    liar = node(*HONEST, revealed(C, ALTERED))
    liar.blobs[hashlib.sha256(QUIET.tobytes()).hexdigest()] = SOUND.tobytes()
    document, _ = explain(liar)
    assert "does not have its hash" in document["members"][0]["waveforms"][0]["missing"]


def test_a_reveal_with_oversized_outputs_is_no_vote() -> None:
    frames = NET.parameters.max_output_bytes // 4 + 1
    chunks = ["0" * 64] * -(-4 * frames // CHUNK_BYTES)
    huge = outcome_of(QUIET, frames=frames, size=4 * frames, chunks=chunks)
    fake = node(*HONEST, revealed(C, huge))
    document, _ = explain(fake, member=C)
    assert (document["members"][0]["conduct"], document["members"][0]["waveforms"]) == (
        "silent",
        [],
    )
    assert "blob" not in fake.asked


def test_an_inconstant_member_is_explained_although_it_agreed_in_the_end() -> None:
    lost = [revealed(member, outcome_of(SOUND[: 10 + n])) for n, member in enumerate((A, B))]
    second = committees(NET, TASK)[1]
    commits = {m: fixtures.commitment_of(TASK, m, TRUTH, 1) for m in second}
    later = [fixtures.reveal(NET, TASK, m, commits, TRUTH, 1) for m in second]
    document, lines = explain(node(*lost, revealed(C, ALTERED), *later))
    assert [m["peer"] for m in document["members"] if m["inconstant"]] == [A, B, C]
    assert sum(line.endswith("  agreed  INCONSTANT") for line in lines) == 3


def test_agreeing_members_are_omitted_unless_named() -> None:
    fake = node(*HONEST, revealed(C, TRUTH))
    document, lines = explain(fake)
    assert document["members"] == []
    assert lines[-1] == "every member agreed"
    document, lines = explain(fake, member=A)
    assert document["members"][0]["conduct"] == "agreed"
    assert lines[-1].endswith("It agreed.")


@pytest.mark.parametrize(
    "name", [C, C[-6:], f"operator-{[fixtures.peer(i) for i in range(4)].index(C)}"]
)
def test_member_is_a_peer_id_its_end_or_an_operator(name: str) -> None:
    document, lines = explain(node(*HONEST, fixtures.abstain(NET, TASK, C, "timeout")), member=name)
    assert [member["peer"] for member in document["members"]] == [C]
    assert document["members"][0]["abstained"] == "timeout"
    assert lines[-1].endswith("It abstained: timeout.")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nobody", "not in a committee"), (fixtures.peer(1000), "not in a"), ("", "names several")],
)
def test_an_ambiguous_or_unknown_member_is_a_usage_error(name: str, reason: str) -> None:
    async def test(client: Client) -> None:
        with pytest.raises(Failure, match=reason) as failure:
            await explain_task(client, TASK.id, name)
        assert failure.value.exit_code == 2

    with_client(node(*HONEST), test=test)


def test_a_silent_member_is_explained() -> None:
    document, lines = explain(node(*HONEST))
    assert [m["conduct"] for m in document["members"]] == ["silent"]
    assert "neither committed nor abstained" in lines[-1]


def test_without_agreement_the_most_common_outcome_is_the_reference() -> None:
    votes = [revealed(A, TRUTH), revealed(B, ALTERED)]
    document, lines = explain(node(*votes))
    assert (document["certified"], document["compared_with"]) == (False, None)
    assert lines[0].startswith("no outcome has more members than another")
    assert len(document["members"]) == 3
    unlisted = [fixtures.reveal(NET, TASK, member, {}, TRUTH) for member in (A, B)]
    document, lines = explain(node(*unlisted, revealed(C, ALTERED)))
    assert document["certified"] is False
    assert "NOT certified" in lines[0]
    assert [m["peer"] for m in document["members"]] == [C]


def test_a_trace_cannot_control_the_terminal() -> None:
    """Right-to-left overrides are not control characters, so the schema accepts them."""
    runtime = {"device": "cpu", "torch": "\u202e2.13.0\u2066"}
    _, lines = explain(node(*HONEST, revealed(C, ALTERED, runtime=runtime)))
    assert any("torch is" in line for line in lines)
    assert all(line.isprintable() for line in lines)


DROPPED = assemble(TASK, 0, HONEST, NET)


def dropped(state: str = "agreed", **changes: Any) -> Fake:
    """A node that has dropped the votes."""
    return Fake(envelopes=[], state=state, **changes)


def test_votes_that_were_dropped_are_no_silence() -> None:
    document, lines = explain(dropped(certificate=DROPPED.document))
    assert document["certified"] is True
    assert (document["members"], document["votes_dropped"]) == ([], 1)
    assert lines[0].startswith("compared with ")
    assert lines[1:] == [
        "votes dropped by 1 of 1 nodes: the task ended long ago; those of its certificate alone can"
        " be shown"
    ]
    document, lines = explain(dropped(certificate=DROPPED.document), member=A)
    assert [member["conduct"] for member in document["members"]] == ["agreed"]
    with pytest.raises(Failure) as failure:
        explain(dropped(certificate=DROPPED.document), member=C)
    assert "its votes were dropped" in failure.value.message


def test_votes_that_another_node_keeps_are_explained() -> None:
    keeping = node(*HONEST, revealed(C, ALTERED))
    document, lines = explain(dropped(certificate=DROPPED.document), keeping)
    assert [member["peer"] for member in document["members"]] == [C]
    assert document["votes_dropped"] == 1
    assert lines[-1] == "votes dropped by 1 of 2 nodes: the task ended long ago"


def test_a_task_that_was_dropped_without_a_certificate_is_reported() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(UnknownTask, match="1 nodes that report inconclusive have dropped its"):
            await explain_task(client, TASK.id)

    with_client(dropped("inconclusive"), test=test)


def test_an_unknown_task_is_reported() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(UnknownTask):
            await explain_task(client, TASK.id)

    with_client(Fake(knows=False), test=test)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["xyz"], "must be a task id"), (["0" * 64], "no node is named")],
)
def test_usage_errors(helium: Helium, files: Files, arguments: Sequence[str], reason: str) -> None:
    done = helium("explain", *arguments, "--network", files.network)
    assert done.exit_code == 2
    assert reason in done.stderr
