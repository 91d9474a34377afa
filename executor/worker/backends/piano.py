"""Pop2Piano on the engine: jobs of the class whose task is `pop2piano`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from executor.audio import decode, manifest, piano_synth
from executor.audio.midi import Note, encode
from executor.determinism import compute_class, profile
from executor.engine.matrices import kind_of
from executor.engine.piano import LIBRARIES, MAX_OUTPUT_SECONDS, PianoModel, Request
from executor.engine.pool import Control
from executor.engine.pop2piano import Steps
from executor.models.folders import EMBEDDED_PIANO
from executor.tasks.arguments import config_members
from executor.tasks.given_tokens import GivenTokens
from executor.worker.backends.engine import (
    EngineBackend,
    sequence_of,
    share_of,
    trace_of_tokens,
    watched,
)
from executor.worker.runner import POP2PIANO, Generated, JobMessage, Report
from protocol import work

if TYPE_CHECKING:
    from executor.audio.song_features import SongFeatures

# The song of the self-test: a note on each beat, so that beats are found. Ticks are 1/768 s.
BEATS, BEAT_TICKS, NOTE_TICKS = 8, 384, 360
LOWEST_PITCH, PITCHES, VELOCITY = 40, 40, 100


class PianoBackend(EngineBackend):
    """The backend of the class that runs pop2piano. numpy and essentia compute its features."""

    task: ClassVar[str] = POP2PIANO
    libraries: ClassVar[Sequence[str]] = LIBRARIES
    embedded: ClassVar[str] = EMBEDDED_PIANO

    def prepare(self) -> None:
        """Check the numeric profile, then as the engine. Raises `ProfileViolated` too."""
        profile.check_numpy()
        super().prepare()

    def runtime(self, probe: str) -> dict[str, object]:
        """Return the runtime of the class, with what decides the bits of features."""
        return super().runtime(probe) | compute_class.describe_numpy()

    def load(self, kind: str, folder: Path, dtype: str, bits: int | None) -> PianoModel:
        """Map a model. Raises `ModelRefused`, `TaskFailed`, `Abstained`."""
        self.require_kind(kind)
        return PianoModel(folder, kind_of(dtype, bits))

    def generate(
        self, model: PianoModel, job: JobMessage, report: Report, computed: None = None
    ) -> Generated:
        """Run a job: the composer, then all inputs' samples, then one cover after another.

        Raises as specification 8.7 says: the first fault in this order decides the outcome.
        """
        args, limits = job["args"], job["model"]["limits"]
        members = config_members(POP2PIANO, args)
        request = model.request(args.get("composer"), int(str(args["seed"])), members)
        paths = [Path(path) for path in job["inputs"]]
        blobs = [Path(blob) for blob in job["tokens"]]
        given = GivenTokens(blobs, len(paths)) if blobs else None
        seconds = min(MAX_OUTPUT_SECONDS, limits.get("output_seconds", MAX_OUTPUT_SECONDS))
        songs = decode.decode_files(paths, limits.get("input_seconds", decode.MAX_SECONDS))
        covers, scores = [], []
        for number, song in enumerate(songs):
            begun = number / len(songs)
            report(begun)
            features = model.features(song)
            with watched(report, share_of(begun, 1 / len(songs) / request.steps)) as control:
                steps = self._compute(model, request, features, given, number, control)
            covers.append(steps)
            scores.append(model.notes(features, steps.tokens, seconds))
        report(1.0)
        proof = [
            sequence_of(steps.tokens.T, model.kept_logits(steps))
            for steps in covers
            if job["proves_work"]
        ]
        tokens = [work.tokens_blob(sequence.steps, sequence.tokens) for sequence in proof]
        outputs = manifest.cover_outputs(scores, tokens or None)
        traces = [trace_of_tokens(steps.tokens.T) for steps in covers]
        return Generated(outputs, traces, work.work_digest(proof) if proof else None)

    def probe(self, model: PianoModel, prompt: str, seed: int) -> bytes:
        """Return the MIDI file of the cover of a song made from a seed, for the self-test."""
        song = decode.resample(piano_synth.render(melody(seed))[:, 0].copy(), piano_synth.RATE)
        features = model.features(song)
        steps = model.generate(model.request(None, seed, {}), features, self._pool)
        return encode(model.notes(features, steps.tokens))

    def _compute(
        self,
        model: PianoModel,
        request: Request,
        features: "SongFeatures",
        given: GivenTokens | None,
        number: int,
        control: Control,
    ) -> Steps:
        """Generate the tokens of a song, or replay those given. Raises `TokensDiffer`."""
        if given is None:
            return model.generate(request, features, self._pool, control)
        rows = len(features.spectrograms)
        count = min(max(given.steps(number), 1), request.steps)
        tokens = given.fit(number, (count, rows), model.vocabulary).T
        steps, difference = model.replay(request, features, tokens, self._pool, control)
        if difference is not None:
            difference = replace(difference, sequence=number)
        given.check(number + 1, difference)
        return steps


def melody(seed: int) -> list[Note]:
    """Return a note on each beat of the self-test's song; the pitches follow from a seed."""
    notes = []
    for beat in range(BEATS):
        seed = (seed * 1_103_515_245 + 12_345) % 2**31
        pitch, start = LOWEST_PITCH + seed // 2**16 % PITCHES, beat * BEAT_TICKS
        notes.append(Note(start, pitch, start + NOTE_TICKS, VELOCITY))
    return notes
