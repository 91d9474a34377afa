"""Text to music on the engine: jobs of the class whose task is `text-to-music`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

import numpy as np

from executor.audio import manifest
from executor.determinism import self_test
from executor.engine.library import Status, check
from executor.engine.matrices import kind_of
from executor.engine.music import MusicModel, Request
from executor.engine.musicgen import Song, Steps
from executor.errors import Abstained, TaskFailed, with_task_failures
from executor.models.families import SEQUENCES
from executor.models.folders import EMBEDDED
from executor.tasks.arguments import config_members, sequence_seeds
from executor.tasks.given_tokens import GivenTokens
from executor.worker.backends.engine import (
    EngineBackend,
    sequence_of,
    share_of,
    trace_of_tokens,
    watched,
)
from executor.worker.runner import TEXT_TO_MUSIC, Generated, JobMessage, Report
from protocol import work

# The share of a job's time that its tokens take; the rest is the codec's.
TOKENS_SHARE = 0.9


class MusicBackend(EngineBackend):
    """The backend of the class that runs text-to-music."""

    task: ClassVar[str] = TEXT_TO_MUSIC
    libraries: ClassVar[Sequence[str]] = ("tokenizers",)
    embedded: ClassVar[str] = EMBEDDED

    def load(self, kind: str, folder: Path, dtype: str, bits: int | None) -> MusicModel:
        """Map a model. Raises `ModelRefused`, `TaskFailed`, `Abstained`."""
        self.require_kind(kind)
        return MusicModel(folder, kind_of(dtype, bits))

    def compute_together(
        self, model: MusicModel, jobs: Sequence[JobMessage], reports: Sequence[Report]
    ) -> Iterator[tuple[int, Steps | None]]:
        """Generate the tokens of several jobs; yield each job's when they are complete.

        None stands for a job that was stopped. Jobs that are not yielded are to run alone: their
        caches do not fit beside the others', or something failed.
        """
        requests = {}
        for place, job in enumerate(jobs):
            with suppress(TaskFailed):
                requests[place] = with_task_failures(partial(request_of, model, job))
        songs: dict[int, Song] = {}
        with ExitStack() as all_watchers:
            watchers = {}
            for place in model.fitting(requests):
                request = requests[place]
                watchers[place] = all_watchers.enter_context(ExitStack())
                # A report raises it again when the job runs on.
                watchers[place].enter_context(suppress(Abstained))
                share = share_of(0, TOKENS_SHARE / request.steps)
                control = watchers[place].enter_context(watched(reports[place], share))
                try:
                    songs[place] = model.song(request, control, self._pool)
                except Abstained:
                    watchers[place].close()
                    yield place, None
                except TaskFailed:
                    watchers[place].close()
            places = [*songs]
            for number, status, steps in model.generate_together([*songs.values()], self._pool):
                place = places[number]
                watchers[place].close()
                match status:
                    case Status.OK:
                        yield place, steps
                    case Status.STOPPED:
                        yield place, None
                    case Status.NO_MEMORY:
                        check(status)

    def generate(
        self, model: MusicModel, job: JobMessage, report: Report, computed: Steps | None = None
    ) -> Generated:
        """Run a job: all tokens, generated or replayed, then the sound of each sequence.

        `computed` are the tokens if `compute_together` has generated them.
        """
        request = request_of(model, job)
        count = len(request.seeds)
        steps = computed or self._compute(model, request, job["tokens"], report)
        frames = []
        for number, tokens in enumerate(steps.tokens):
            begun = TOKENS_SHARE + (1 - TOKENS_SHARE) * number / count
            with watched(report, share_of(begun, 0)) as control:
                waveform = model.decode(tokens, self._pool, control)
            frames.append(manifest.canonical_frames(waveform))
        report(1.0)
        pairs = zip(steps.tokens, steps.logits, strict=True)
        proof = [sequence_of(*pair) for pair in pairs] if job["proves_work"] else ()
        blobs = [work.tokens_blob(sequence.steps, sequence.tokens) for sequence in proof]
        outputs = [
            manifest.waveform_output(frame, model.sampling_rate, blob)
            for frame, blob in zip_longest(frames, blobs)
        ]
        traces = [trace_of_tokens(tokens) for tokens in steps.tokens]
        return Generated(outputs, traces, work.work_digest(proof) if proof else None)

    def probe(self, model: MusicModel, prompt: str, seed: int) -> bytes:
        """Return the canonical waveform of a short generation, for the self-test."""
        request = model.request(prompt, [seed], {"max_new_tokens": self_test.TOKENS})
        (tokens,) = model.generate(request, self._pool).tokens
        return manifest.canonical_frames(model.decode(tokens, self._pool)).tobytes()

    def _compute(
        self, model: MusicModel, request: Request, blobs: Sequence[str], report: Report
    ) -> Steps:
        """Generate the tokens of all sequences, or replay those of `blobs`.

        As many run together as `MusicModel.batch` allows. Raises `TokensDiffer`.
        """
        count, (codebooks, vocabulary) = len(request.seeds), model.shape
        given = GivenTokens([Path(blob) for blob in blobs], count) if blobs else None
        shape = request.steps, codebooks
        batches: list[Steps] = []
        size = model.batch(request)
        for start in range(0, count, size):
            batch = replace(request, seeds=request.seeds[start : start + size])
            end = start + len(batch.seeds)
            # A replay counts the steps of one sequence after another, a generation those of all.
            counted = request.steps * (len(batch.seeds) if given else 1)
            begun, width = start * TOKENS_SHARE / count, (end - start) * TOKENS_SHARE / count
            with watched(report, share_of(begun, width / counted)) as control:
                if given is None:
                    batches.append(model.generate(batch, self._pool, control))
                    continue
                fitted = np.stack([given.fit(n, shape, vocabulary) for n in range(start, end)])
                steps, difference = model.replay(batch, fitted, self._pool, control)
            if difference is not None:
                difference = replace(difference, sequence=start + difference.sequence)
            given.check(end, difference)
            batches.append(steps)
        return Steps(
            np.concatenate([batch.tokens for batch in batches]),
            np.concatenate([batch.logits for batch in batches]),
        )


def request_of(model: MusicModel, job: JobMessage) -> Request:
    """Return what a job asks of a model. Raises `TaskFailed`."""
    members = config_members(TEXT_TO_MUSIC, job["args"])
    seeds = sequence_seeds(int(str(job["args"]["seed"])), members.pop(SEQUENCES, None) or 1)
    return model.request(str(job["args"]["prompt"]), seeds, members)
