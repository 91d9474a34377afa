"""Replays of outcomes in a real worker; only the download of blobs is a stand-in."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from executor.determinism.compute_class import KINDS
from executor.job import Difference, Execution, Job, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED, weights_digest
from executor.worker.supervisor import START_SECONDS, WorkerSupervisor
from node.cli.replay import Replay, Replayer
from node.client.client import Client
from node.sync.blob_download import BlobUnavailable
from protocol.manifest import Blob, blobs_of
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.work import parse_tokens, tokens_blob
from tests.support import fixtures

STEPS = 70
ARGS = {
    "model": EMBEDDED,
    "prompt": "bells",
    "seed": 4,
    "generation_config": {"max_new_tokens": STEPS, "num_return_sequences": 2},
}


class Blobs:
    """Serves blobs, as `Client.fetch_blob` does."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def add(self, content: bytes) -> dict[str, object]:
        sha256 = hashlib.sha256(content).hexdigest()
        self.contents[sha256] = content
        return {"sha256": sha256, "size": len(content)}

    async def fetch_blob(self, blob: Blob, preferred: Sequence[str]) -> bytes:
        if blob.sha256 not in self.contents:
            raise BlobUnavailable(f"nobody has {blob.sha256}")
        return self.contents[blob.sha256]


class Scene:
    """A task of this machine's class, its outcome, and the blobs of it."""

    def __init__(self, scratch: Path) -> None:
        supervisor = WorkerSupervisor([], scratch, kind=KINDS["music"])
        digest = weights_digest(SHIPPED / EMBEDDED)
        try:
            runtime = supervisor.start(START_SECONDS).runtime
            job = Job("task", "text-to-music", ARGS, ModelRef(EMBEDDED, "1", digest), (), True)
            execution = supervisor.run(job, timeout=600, progress=lambda _: None)
        finally:
            supervisor.close()
        self.document = fixtures.helium_document()
        self.document["classes"][fixtures.HELIUM] = runtime
        self.document["models"][0]["digest"] = digest
        self.blobs = Blobs()
        self.outcome: Any = execution.outcome
        self._keep(execution)

    def _keep(self, execution: Execution) -> None:
        for blob, path in zip(blobs_of(self.outcome), execution.files, strict=True):
            assert self.blobs.add(path.read_bytes())["sha256"] == blob.sha256

    def replay(self, outcome: Any, document: Any = None, **changes: Any) -> Replay | None:
        """Replay an outcome of the task, whose arguments have these changes."""
        network = Network.of(document or self.document)
        task = fixtures.task(network, compute_class=fixtures.HELIUM, **{**ARGS, **changes})
        with Replayer(network, task, []) as replayer:
            client = cast("Client", self.blobs)
            return asyncio.run(replayer.replay(client, cast("Document", outcome), []))

    def altered(self, number: int, **changes: Any) -> Any:
        """Return the outcome with another entry of one output."""
        outputs = [dict(output) for output in self.outcome["result"]["outputs"]]
        outputs[number] |= changes
        return {**self.outcome, "result": {"outputs": outputs}}

    def retokened(self, number: int, change: Callable[[Any], None]) -> Any:
        """Return the outcome with other tokens of one output."""
        entry = self.outcome["result"]["outputs"][number]["tokens"]
        steps, columns, tokens = parse_tokens(self.blobs.contents[entry["sha256"]])
        array = np.frombuffer(tokens, "<i4").reshape(steps, columns).copy()
        change(array)
        return self.altered(number, tokens=self.blobs.add(tokens_blob(steps, array.tobytes())))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


def test_the_outcome_of_a_task_is_equal(scene: Scene) -> None:
    replay = scene.replay(scene.outcome)
    assert replay is not None
    assert replay.equal
    assert str(replay).startswith("equal to what this machine computed from its tokens in ")


def test_the_first_token_that_the_task_does_not_draw_is_named(scene: Scene) -> None:
    def change(tokens: Any) -> None:
        tokens[41, 2] ^= 1

    replay = scene.replay(scene.retokened(1, change))
    assert replay == Replay(False, difference=Difference(1, 41, 2))
    assert str(replay).endswith("first at step 41 of sequence 1, column 2")


def test_tokens_of_another_task_are_told(scene: Scene) -> None:
    replay = scene.replay(scene.outcome, seed=5)
    assert replay is not None
    assert replay.equal is False
    assert replay.difference is not None


@pytest.mark.parametrize(
    ("changes", "members"),
    [
        ({"sha256": "0" * 64}, ("waveform",)),
        ({"sampling_rate": 8_000}, ("waveform",)),
    ],
)
def test_another_sound_of_the_right_tokens_is_named(
    scene: Scene, changes: dict[str, Any], members: tuple[str, ...]
) -> None:
    replay = scene.replay(scene.altered(0, **changes))
    assert replay is not None
    assert (replay.equal, replay.members) == (False, members)
    assert str(replay) == "its tokens are the task's, its waveform not"


def test_work_of_other_logits_is_named(scene: Scene) -> None:
    replay = scene.replay({**scene.outcome, "work": "0" * 64})
    assert replay is not None
    assert (replay.equal, replay.members) == (False, ("work",))


def test_an_error_and_a_task_without_work_have_no_replay(scene: Scene) -> None:
    assert scene.replay({"error": "generation-rejected"}) is None
    document = {**scene.document, "models": [dict(m) for m in scene.document["models"]]}
    del document["models"][0]["replay"]
    assert scene.replay(scene.outcome, document) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["models"][0].update(digest="d" * 64), "has digest"),
        (lambda d: d["models"][0].update(revision="x", id="a/b"), "is in none of the model"),
        (lambda d: d["classes"][fixtures.HELIUM].update(arithmetic=9), "arithmetic: ours 1, the"),
    ],
)
def test_what_keeps_this_machine_from_replaying_is_told(
    scene: Scene, change: Callable[[Any], None], words: str
) -> None:
    document = {
        **scene.document,
        "models": [dict(model) for model in scene.document["models"]],
        "classes": {name: dict(runtime) for name, runtime in scene.document["classes"].items()},
    }
    change(document)
    model = document["models"][0]["id"]
    replay = scene.replay(scene.outcome, document, model=model)
    assert replay is not None
    assert replay.equal is None
    assert words in str(replay)


def test_missing_tokens_are_told(scene: Scene) -> None:
    gone = scene.altered(0, tokens={"sha256": "0" * 64, "size": 8})
    assert scene.replay(gone) == Replay(None, f"nobody has {'0' * 64}")
