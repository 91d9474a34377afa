"""Computes jobs with transformers and torch, under the numeric profile.

A kind's libraries are imported with its first job, so that a worker pays only for the kinds that it
runs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from executor.audio import manifest
from executor.determinism import compute_class, profile, self_test
from executor.models.folders import EMBEDDED
from executor.worker.runner import POP2PIANO, TEXT_TO_MUSIC, Generated, JobMessage, Report


class TransformersBackend:
    """The backend of the classes of engine `transformers`."""

    task: ClassVar[str] = TEXT_TO_MUSIC
    embedded: ClassVar[str] = EMBEDDED
    threads = 1  # by the numeric profile

    def __init__(self, device: profile.Device = "cpu") -> None:
        self._device = device

    def prepare(self) -> None:
        """Fix the numeric profile. Raises `ProfileViolated`."""
        profile.fix(self._device)

    def runtime(self, probe: str) -> dict[str, object]:
        """Return the runtime of this process."""
        return compute_class.describe_runtime(probe, self._device)

    def load(self, kind: str, folder: Path, dtype: str, bits: int | None) -> Any:
        """Load a model. Raises `ModelRefused`, `TaskFailed`."""
        if bits is not None:
            profile.fix_quantization()
        if kind == POP2PIANO:
            from executor.tasks import pop2piano

            return pop2piano.load(folder, dtype, bits)
        from executor.tasks import text_to_music

        return text_to_music.load(folder, dtype, bits, self._device)

    def probe(self, model: Any, prompt: str, seed: int) -> bytes:
        """Return the canonical waveform of a short generation, for the self-test."""
        from executor.tasks import text_to_music

        config = {"max_new_tokens": self_test.TOKENS}
        args = {"prompt": prompt, "seed": seed, "generation_config": config}
        (sound,) = text_to_music.sounds(model, args, lambda _: None)
        return manifest.canonical_frames(sound.audio).tobytes()

    def compute_together(
        self, model: Any, jobs: Sequence[JobMessage], reports: Sequence[Report]
    ) -> Iterator[tuple[int, Any]]:
        """Compute nothing: transformers computes other bytes in batches (decision 0005)."""
        return iter(())

    def generate(
        self, model: Any, job: JobMessage, report: Report, computed: Any = None
    ) -> Generated:
        """Run a job. The outputs of pop2piano are rendered as they are read."""
        if job["task_kind"] == POP2PIANO:
            from executor.tasks import pop2piano

            paths = [Path(path) for path in job["inputs"]]
            covers = pop2piano.covers(model, job["args"], paths, report, job["model"]["limits"])
            outputs = manifest.cover_outputs([cover.notes for cover in covers])
            return Generated(outputs, [cover.tokens for cover in covers])
        from executor.tasks import text_to_music

        sounds = text_to_music.sounds(model, job["args"], report)
        # All are checked for NaN before the first is written.
        frames = [manifest.canonical_frames(sound.audio) for sound in sounds]
        waveforms = [
            manifest.waveform_output(waveform, sound.sampling_rate)
            for waveform, sound in zip(frames, sounds, strict=True)
        ]
        return Generated(waveforms, [sound.tokens for sound in sounds])
