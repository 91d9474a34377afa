"""The liars of the test network. Each alters the audio in its own, consistent way."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from executor.audio.manifest import TOKENS_SUFFIX, waveform_output
from executor.job import Execution, Job, ModelRef
from node.cli.exit_codes import Exit
from node.execution.queue import Readiness
from protocol.network import Model, NetworkParameters
from protocol.work import tokens_blob
from scripts.testnet_tool.liar import Liar, lie_of
from tests.integration.conftest import running_light, task

JOB = Job("0" * 64, "text-to-music", {}, ModelRef("m", "main", "0" * 64))
SAMPLES = np.random.default_rng(1).uniform(-1, 1, (70_000, 1)).astype("<f4")  # two chunks
TOKENS = tokens_blob(2, bytes(8))


class _Honest:
    max_together = 1

    def __init__(self, folder: Path, outcome: dict[str, object]) -> None:
        self._file, self._outcome = folder / "0.f32", outcome

    async def start(self) -> Readiness:
        return Readiness(True)

    async def warm(self, model: Model) -> None:
        return

    def is_alive(self) -> bool:
        return True

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        self._file.write_bytes(SAMPLES.tobytes())
        return Execution(self._outcome, (self._file,), {})

    async def close(self) -> None:
        return


async def _run_liar(
    folder: Path, index: int
) -> tuple[object, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    honest = _Honest(folder, {"result": {"outputs": [waveform_output(SAMPLES, 16_000).entry]}})
    execution = await Liar(honest, lie_of(index)).run(JOB, 1.0, lambda _: None)
    return execution.outcome, np.fromfile(execution.files[0], "<f4")


@pytest.mark.parametrize("index", range(1, 8))
async def test_lie_has_a_matching_manifest(tmp_path: Path, index: int) -> None:
    outcome, samples = await _run_liar(tmp_path, index)
    assert outcome == {
        "result": {"outputs": [waveform_output(samples.reshape(-1, 1), 16_000).entry]}
    }
    assert not np.array_equal(samples, SAMPLES.ravel())
    assert not np.signbit(samples[samples == 0]).any()


class _Proven(_Honest):
    """An honest executor of a task that proves work."""

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        execution = await super().run(job, seconds, progress)
        tokens = self._file.with_suffix(TOKENS_SUFFIX)
        tokens.write_bytes(TOKENS)
        return replace(execution, files=(*execution.files, tokens))


async def test_liar_leaves_tokens_and_work_as_they_are(tmp_path: Path) -> None:
    entry = waveform_output(SAMPLES, 16_000, TOKENS).entry
    honest = _Proven(tmp_path, {"result": {"outputs": [entry]}, "work": "ab" * 32})
    execution = await Liar(honest, lie_of(1)).run(JOB, 1.0, lambda _: None)
    sound, tokens = execution.files
    samples = np.fromfile(sound, "<f4").reshape(-1, 1)
    assert execution.outcome == {
        "result": {"outputs": [waveform_output(samples, 16_000, TOKENS).entry]},
        "work": "ab" * 32,
    }
    assert tokens.read_bytes() == TOKENS
    assert not np.array_equal(samples, SAMPLES)


async def test_each_liar_alters_the_audio_differently(tmp_path: Path) -> None:
    digests = {
        hashlib.sha256((await _run_liar(tmp_path, i))[1].tobytes()).digest() for i in range(1, 8)
    }
    assert len(digests) == 7


async def test_liar_passes_errors_on(tmp_path: Path) -> None:
    outcome: dict[str, object] = {"error": "generation-rejected"}
    execution = await Liar(_Honest(tmp_path, outcome), lie_of(1)).run(JOB, 1.0, lambda _: None)
    assert execution.outcome == outcome


def test_two_liars_of_four_prevent_agreement(tmp_path: Path) -> None:
    # All four commit, so nobody waits for the grace period.
    parameters = NetworkParameters(committee_size=4, committee_max=4, commit_grace_seconds=60)
    with running_light(tmp_path / "net", 4, parameters, liars=2) as network:
        done = network.helium("submit", "-", "-o", "song.wav", stdin=json.dumps(task()))
        assert done.returncode == Exit.NO_AGREEMENT, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0].startswith("inconclusive")
        votes = [line.split("voted ")[1] for line in lines if "voted " in line]
        assert len(votes) == 4
        assert len(set(votes)) == 3
        assert not (network.root / "song.wav").exists()
