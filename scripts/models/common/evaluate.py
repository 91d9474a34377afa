"""Evaluate a model on held-out data through a worker process, as a node would run it.

Usage: scripts/embed measure {music,piano} [--count N] …
       scripts/embed measure music --calibrate
"""

import argparse
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile
import torch
from transformers import EncodecModel

from executor.audio import midi
from executor.job import Job, ModelRef
from executor.models.folders import SHIPPED, weights_digest
from executor.worker.supervisor import WorkerSupervisor
from schemas.errors import HeliumError
from scripts import arguments, one_line
from scripts.models.common.export import MODELS
from scripts.models.music.codec import codec_config, decode_audio, write_codec
from scripts.models.music.evaluate import (
    PIECE_FRAMES,
    PIECE_SECONDS,
    HeldOutCaption,
    Tally,
    attribute_table,
    calibration_report,
    codec_distances,
    held_out_captions,
    tally_answers,
)
from scripts.models.music.instruments import SAMPLING_RATE, Samples
from scripts.models.music.render import render_tokens
from scripts.models.piano.evaluate import cover_table, score_covers

# Seconds for a start of the worker or a task, also on a slow machine.
TIMEOUT = 600.0


class EvaluationFailed(HeliumError):
    """The worker did not start, or answered a task with an error."""


class ModelWorker:
    """Runs tasks of one model in a worker process."""

    def __init__(
        self, supervisor: WorkerSupervisor, scratch: Path, models: Path, model: str
    ) -> None:
        self._supervisor, self._scratch = supervisor, scratch
        self._model = ModelRef(model, "1", weights_digest(models / model))

    def music(self, prompt: str, seed: int, config: Mapping[str, object]) -> Samples:
        """Return the audio for a prompt."""
        args = {"prompt": prompt, "seed": seed, "generation_config": dict(config)}
        (file,) = self._run("text-to-music", args)
        return np.fromfile(file, "<f4").astype(np.float64)

    def cover(self, song: Samples, composer: str) -> list[tuple[float, int]]:
        """Return the notes of a song's cover: onset in seconds, MIDI pitch."""
        path = self._scratch / "song.wav"
        soundfile.write(path, song, SAMPLING_RATE)
        content = path.read_bytes()
        reference = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        args = {"audio": [reference], "seed": 1, "composer": composer}
        score, _ = self._run("pop2piano", args, path)
        return [
            (start / midi.TICKS_PER_SECOND, pitch)
            for start, pitch in _note_onsets(score.read_bytes())
        ]

    def _run(self, kind: str, args: Mapping[str, object], *inputs: Path) -> tuple[Path, ...]:
        job = Job("measure", kind, {"model": self._model.id, **args}, self._model, inputs)
        execution = self._supervisor.run(job, timeout=TIMEOUT, progress=lambda _: None)
        if "error" in execution.outcome:
            raise EvaluationFailed(f"{kind}: {execution.outcome['error']}")
        return execution.files


@contextmanager
def running_model(models: Path, model: str) -> Iterator[ModelWorker]:
    """Run a worker for a model in a folder of models during the block."""
    with tempfile.TemporaryDirectory() as scratch:
        supervisor = WorkerSupervisor([models], Path(scratch))
        ready = supervisor.start(TIMEOUT)
        try:
            if not ready.ok:
                raise EvaluationFailed(ready.reason)
            yield ModelWorker(supervisor, Path(scratch), models, model)
        finally:
            supervisor.close()


def _note_onsets(content: bytes) -> list[tuple[int, int]]:
    """Return tick and pitch of each note-on in a MIDI file of `executor.audio.midi`."""
    now, onsets = 0, []
    for message in mido.MidiFile(file=io.BytesIO(content)).tracks[1]:
        now += message.time
        if message.type == "note_on" and message.velocity:
            onsets.append((now, message.note))
    return onsets


# The counts on which the figures of the model cards are based.
DEFAULT_COUNTS = {"music": 100, "piano": 60}


def _parse_arguments() -> argparse.Namespace:
    parser = arguments.Parser("scripts/embed measure", __doc__.split("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument(
        "--models",
        type=arguments.folder,
        default=SHIPPED,
        help="the folder of models (default: the shipped models)",
    )
    parser.add_argument(
        "--count", type=arguments.whole(1), help="captions (default 100) or songs (default 60)"
    )
    parser.add_argument(
        "--config", type=_config, default={}, help="JSON of a generation_config to try"
    )
    parser.add_argument(
        "--only", action="store_true", help="evaluate the model only, not the references"
    )
    parser.add_argument(
        "--calibrate", action="store_true", help="print the best thresholds of the analysis"
    )
    parser.add_argument("--sound", type=arguments.new_folder, help="keep the audio in this folder")
    options = parser.parse_args()
    if not (folder := options.models / MODELS[options.model]).is_dir():
        parser.error(f"--models: there is no folder {folder}")
    return options


def _config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return config


def main() -> None:
    options = _parse_arguments()
    options.count = options.count or DEFAULT_COUNTS[options.model]
    torch.set_num_threads(1)
    if options.calibrate:
        print(calibration_report())
        return
    codec = EncodecModel(codec_config()).eval()
    write_codec(codec)
    with running_model(options.models, MODELS[options.model]) as worker:
        {"music": _evaluate_music, "piano": _evaluate_piano}[options.model](options, codec, worker)


def _evaluate_music(options: argparse.Namespace, codec: EncodecModel, worker: ModelWorker) -> None:
    questions = held_out_captions(options.count)
    columns = [] if options.only else _reference_columns(codec, questions)
    config, seconds = {"max_new_tokens": PIECE_FRAMES + 3, **options.config}, []

    def answer(question: HeldOutCaption) -> Samples:
        started = time.monotonic()
        audio = worker.music(question.text, question.number, config)
        seconds.append(time.monotonic() - started)
        if options.sound:
            options.sound.mkdir(parents=True, exist_ok=True)
            soundfile.write(options.sound / f"{question.number}.wav", audio, SAMPLING_RATE)
        return audio

    columns.append(("model", tally_answers(questions, answer)))
    print(attribute_table(columns))
    print(f"\n{np.median(seconds):.1f} s (median) for {PIECE_SECONDS} s of audio")
    print("\n".join(columns[-1][1].wrong), file=sys.stderr)


def _reference_columns(
    codec: EncodecModel, questions: list[HeldOutCaption]
) -> list[tuple[str, Tally]]:
    """Evaluate the reference audio and the codec's audio, and print their distance."""
    matched, mismatched = codec_distances(codec, questions)
    print(
        f"codec from generator {matched:.1f} dB; from another piece {mismatched:.1f} dB\n",
        flush=True,
    )
    return [
        ("generator's audio", tally_answers(questions, lambda q: render_tokens(q.codes))),
        ("codec's audio", tally_answers(questions, lambda q: decode_audio(codec, q.codes))),
    ]


def _evaluate_piano(options: argparse.Namespace, codec: EncodecModel, worker: ModelWorker) -> None:
    print(cover_table(score_covers(codec, worker.cover, options.count)))


if __name__ == "__main__":
    one_line.run(main)
