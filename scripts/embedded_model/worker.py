"""A node's own worker, for measuring: what a user of the node gets."""

import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mido
import numpy as np
import soundfile

from executor.audio import midi
from executor.job import Job, ModelRef
from executor.models.folders import weights_digest
from executor.worker.supervisor import WorkerSupervisor
from scripts.embedded_model.analysis import Samples
from scripts.embedded_model.percussion import SAMPLING_RATE

TIMEOUT = 600.0


class Worker:
    """Runs tasks of one listed model."""

    def __init__(
        self, supervisor: WorkerSupervisor, scratch: Path, models: Path, model: str
    ) -> None:
        self._supervisor, self._scratch = supervisor, scratch
        self._model = ModelRef(model, "1", weights_digest(models / model))

    def music(self, prompt: str, seed: int, config: Mapping[str, object]) -> Samples:
        """The audio of a prompt."""
        args = {"prompt": prompt, "seed": seed, "generation_config": dict(config)}
        (file,) = self._run("text-to-music", args)
        return np.fromfile(file, "<f4").astype(np.float64)

    def cover(self, song: Samples, composer: str) -> list[tuple[float, int]]:
        """The notes of a song's cover: when each begins, in seconds, and its MIDI pitch."""
        path = self._scratch / "song.wav"
        soundfile.write(path, song, SAMPLING_RATE)
        content = path.read_bytes()
        named = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        args = {"audio": [named], "seed": 1, "composer": composer}
        score, _ = self._run("pop2piano", args, path)
        return [(start / midi.TICKS, pitch) for start, pitch in begun(score.read_bytes())]

    def _run(self, kind: str, args: Mapping[str, object], *inputs: Path) -> tuple[Path, ...]:
        job = Job("measure", kind, {"model": self._model.id, **args}, self._model, inputs)
        done = self._supervisor.run(job, timeout=TIMEOUT, progress=lambda _: None)
        if "error" in done.outcome:
            raise ValueError(f"{kind}: {done.outcome['error']}")
        return done.files


@contextmanager
def started(models: Path, model: str) -> Iterator[Worker]:
    """A worker of a model in a folder of models."""
    with tempfile.TemporaryDirectory() as scratch:
        supervisor = WorkerSupervisor([models], Path(scratch))
        ready = supervisor.start(TIMEOUT)
        try:
            if not ready.ok:
                raise ValueError(ready.reason)
            yield Worker(supervisor, Path(scratch), models, model)
        finally:
            supervisor.close()


def begun(content: bytes) -> list[tuple[int, int]]:
    """The note-ons of a MIDI file of `executor.audio.midi`: tick and pitch."""
    now, found = 0, []
    for message in mido.MidiFile(file=io.BytesIO(content)).tracks[1]:
        now += message.time
        if message.type == "note_on" and message.velocity:
            found.append((now, message.note))
    return found
