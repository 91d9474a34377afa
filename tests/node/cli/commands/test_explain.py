"""What `helium explain` says of a member, from what nodes show and serve of it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from node.cli.commands.explain import explained
from node.cli.exit_codes import Failure
from node.client.client import Client
from node.sync.task_tracker import UnknownTask
from protocol.consensus.certificate import assemble
from protocol.consensus.committee import committees
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


def revealed(member: str, found: dict[str, Any], **changes: Any) -> Reveal:
    commits = {m: fixtures.bound(TASK, m, TRUTH) for m in (A, B, C)}
    commits[member] = fixtures.bound(TASK, member, found)
    body = fixtures.reveal(NET, TASK, member, commits, found).envelope.body
    vote = fixtures.signed_by(NET, {**body, "trace": {**TRACE, **changes}}, member)
    assert isinstance(vote, Reveal)
    return vote


HONEST = [revealed(A, TRUTH), revealed(B, TRUTH)]


def node(*votes: Message, **changes: Any) -> Fake:
    """A node that shows the task and votes, and serves the truth."""
    envelopes = [message.envelope.document() for message in (TASK, *votes)]
    served = {hashlib.sha256(SOUND.tobytes()).hexdigest(): SOUND.tobytes()}
    return Fake(envelopes=envelopes, blobs=served, state="agreed", **changes)


def said(*nodes: Fake, member: str | None = None) -> tuple[dict[str, Any], list[str]]:
    found: list[tuple[dict[str, Any], list[str]]] = []

    async def test(client: Client) -> None:
        found.append(await explained(client, TASK.id, member))

    with_client(*nodes, test=test)
    return found[0]


def serving(fake: Fake, *sounds: Any) -> Fake:
    for sound in sounds:
        fake.blobs[hashlib.sha256(sound.tobytes()).hexdigest()] = sound.tobytes()
    return fake


def test_a_liar_is_shown_down_to_the_sample() -> None:
    document, lines = said(serving(node(*HONEST, revealed(C, ALTERED)), QUIET))
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
    assert "times 0.9 (-0.92 dB)" in member["reason"]
    assert lines[-1].endswith("it was altered after it was computed.")
    assert any("largest difference" in line and "-20.0 dB" in line for line in lines)


def test_votes_that_only_the_certificate_holds_count() -> None:
    certificate = assemble(TASK, 0, HONEST, NET)
    document, _ = said(node(revealed(C, ALTERED), certificate=certificate.document))
    assert document["certified"] is True
    assert [member["peer"] for member in document["members"]] == [C]


def test_a_waveform_that_nobody_serves_is_said_to_be_missing() -> None:
    document, lines = said(node(*HONEST, revealed(C, ALTERED)))
    (waveform,) = document["members"][0]["waveforms"]
    assert waveform["difference"] is None
    assert "unknown-blob" in waveform["missing"]
    assert any("unknown-blob" in line for line in lines)
    assert "or an altered result" in lines[-1]


def test_wrong_bytes_are_no_waveform() -> None:
    liar = node(*HONEST, revealed(C, ALTERED))
    liar.blobs[hashlib.sha256(QUIET.tobytes()).hexdigest()] = SOUND.tobytes()
    document, _ = said(liar)
    assert "does not have its hash" in document["members"][0]["waveforms"][0]["missing"]


def test_a_manifest_that_claims_too_much_is_not_fetched() -> None:
    huge = outcome_of(QUIET, size=2**28)
    document, _ = said(node(*HONEST, revealed(C, huge)))
    assert "the network allows" in document["members"][0]["waveforms"][0]["missing"]


def test_who_agrees_is_left_out_unless_asked_for() -> None:
    fake = node(*HONEST, revealed(C, TRUTH))
    document, lines = said(fake)
    assert document["members"] == []
    assert lines[-1] == "every member agreed"
    document, lines = said(fake, member=A)
    assert document["members"][0]["conduct"] == "agreed"
    assert lines[-1].endswith("It agreed.")


@pytest.mark.parametrize(
    "name", [C, C[-6:], f"operator-{[fixtures.peer(i) for i in range(4)].index(C)}"]
)
def test_a_member_is_named_by_its_id_the_end_of_it_or_its_operator(name: str) -> None:
    document, lines = said(node(*HONEST, fixtures.abstain(NET, TASK, C, "timeout")), member=name)
    assert [member["peer"] for member in document["members"]] == [C]
    assert document["members"][0]["abstained"] == "timeout"
    assert lines[-1].endswith("It abstained: timeout. It has no result to compare.")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nobody", "not in a committee"), (fixtures.peer(1000), "not in a"), ("", "no single")],
)
def test_who_is_no_single_member_is_wrong_usage(name: str, reason: str) -> None:
    async def test(client: Client) -> None:
        with pytest.raises(Failure, match=reason) as failure:
            await explained(client, TASK.id, name)
        assert failure.value.exit_code == 2

    with_client(node(*HONEST), test=test)


def test_the_silent_are_explained() -> None:
    document, lines = said(node(*HONEST))
    assert [m["conduct"] for m in document["members"]] == ["silent"]
    assert "neither committed nor abstained" in lines[-1]


def test_without_agreement_most_members_are_compared_with() -> None:
    alone = [revealed(A, TRUTH), revealed(B, ALTERED)]
    document, lines = said(node(*alone))
    assert (document["certified"], document["compared_with"]) == (False, None)
    assert lines[0].startswith("no outcome has more members than another")
    assert len(document["members"]) == 3
    unlisted = [fixtures.reveal(NET, TASK, member, {}, TRUTH) for member in (A, B)]
    document, lines = said(node(*unlisted, revealed(C, ALTERED)))
    assert document["certified"] is False
    assert "NOT certified" in lines[0]
    assert [m["peer"] for m in document["members"]] == [C]


def test_what_a_trace_says_cannot_steer_a_terminal() -> None:
    """Right-to-left overrides are no control characters; the schema lets them pass."""
    runtime = {"device": "cpu", "torch": "\u202e2.13.0\u2066"}
    _, lines = said(node(*HONEST, revealed(C, ALTERED, runtime=runtime)))
    assert any("torch is" in line for line in lines)
    assert all(line.isprintable() for line in lines)


def test_a_task_that_nobody_knows_is_unknown() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(UnknownTask):
            await explained(client, TASK.id)

    with_client(Fake(knows=False), test=test)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["xyz"], "must be a task id"), (["0" * 64], "no node is named")],
)
def test_wrong_usage_is_said(
    helium: Helium, files: Files, arguments: Sequence[str], reason: str
) -> None:
    done = helium("explain", *arguments, "--network", files.network)
    assert done.exit_code == 2
    assert reason in done.stderr
