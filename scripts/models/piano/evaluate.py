"""Evaluation of the piano model: F1 of note onsets, per row in training and for whole songs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from transformers import GenerationMixin

from scripts.models.music.codec import decode_audio
from scripts.models.music.instruments import HOP, SAMPLING_RATE, Samples
from scripts.models.music.tokens import Codes, compose_piece, decode_tokens
from scripts.models.piano.dataset import PianoBatch, encoder_inputs, forward
from scripts.models.piano.model import IGNORED, frame_notes, onset_logits, step_attention
from scripts.models.piano.score import COMPOSERS, Grid, note_onsets, piano_parts, quantize


@torch.inference_mode()  # type: ignore[untyped-decorator]
def onset_metrics(model: Any, head: Any, batches: Sequence[PianoBatch]) -> dict[str, float]:
    """Return F1 of the notes per frame, and the share of frames whose step is correct."""
    correct = predicted = expected = correct_steps = frames = 0
    for batch in batches:
        encoded = model.encoder(inputs_embeds=encoder_inputs(model, batch))[0]
        steps, notes = onset_logits(head, encoded)
        is_frame = batch.targets.steps != IGNORED
        is_predicted, is_expected = notes[is_frame] > 0, frame_notes(batch.targets)[is_frame] > 0
        correct += int((is_predicted & is_expected).sum())
        predicted += int(is_predicted.sum())
        expected += int(is_expected.sum())
        correct_steps += int((steps.argmax(-1) == batch.targets.steps)[is_frame].sum())
        frames += int(is_frame.sum())
    return {
        "frame f1": 2 * correct / max(1, predicted + expected),
        "steps right": correct_steps / frames,
    }


@torch.inference_mode()  # type: ignore[untyped-decorator]
def cover_metrics(model: Any, batches: Sequence[PianoBatch]) -> dict[str, float]:
    """Return F1 of note onsets in greedy covers, and the best head's attention on their steps."""
    correct = predicted = expected = 0
    shares = []
    for batch in batches:
        generated = GenerationMixin.generate(model, inputs_embeds=encoder_inputs(model, batch))
        for tokens, targets in zip(generated.tolist(), batch.tokens.tolist(), strict=True):
            written, expected_onsets = note_onsets(tokens), note_onsets(targets)
            correct, predicted, expected = (
                correct + len(written & expected_onsets),
                predicted + len(written),
                expected + len(expected_onsets),
            )
        shares.append(
            step_attention(forward(model, batch).cross_attentions, batch.onset_steps, batch.targets)
        )
    best = torch.cat(shares).mean(0).max()
    return {"note f1": 2 * correct / max(1, predicted + expected), "looked": float(best)}


# The length of a test song: 16 seconds.
SONG_FRAMES: Final = 800
# Seconds between two onsets that count as the same.
ONSET_TOLERANCE: Final = 0.1
Onset = tuple[float, int]  # seconds, MIDI pitch


@dataclass(frozen=True, slots=True)
class OnsetCounts:
    """The correct, written and expected note onsets of a cover."""

    correct: int
    written: int
    expected: int

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.correct / max(1, self.written + self.expected)


def score_covers(
    codec: Any, make_cover: Callable[[Samples, str], Sequence[Onset]], count: int
) -> dict[str, list[OnsetCounts]]:
    """Return the onset counts of covers of held-out songs, by composer.

    `make_cover` returns a song's cover for a composer. The key `chance` compares each song with the
    cover of the composer's previous song.
    """
    counts: dict[str, list[OnsetCounts]] = {name: [] for name in (*COMPOSERS, "chance")}
    previous: dict[str, Sequence[Onset]] = {}
    for number in range(count):
        composer = list(COMPOSERS)[number % len(COMPOSERS)]
        codes = held_out_song(number)
        expected = expected_onsets(codes, composer)
        cover = make_cover(decode_audio(codec, codes), composer)
        counts[composer].append(match_onsets(cover, expected))
        if composer in previous:
            counts["chance"].append(match_onsets(previous[composer], expected))
        previous[composer] = cover
    return counts


def held_out_song(number: int) -> Codes:
    """Return the tokens of a song that training never saw, by its name."""
    return compose_piece(f"held back song/{number}", SONG_FRAMES)[2]


def expected_onsets(codes: Codes, composer: str) -> list[Onset]:
    """Return the onsets of a song's piano part that Pop2Piano can write: those on eighths."""
    beat = decode_tokens(codes)[0]
    ticks = [frame for frame, token in enumerate(beat) if type(token).__name__ == "Tick"]
    grid = Grid(0.0, 2.0 * (ticks[1] - ticks[0]))
    notes = quantize(piano_parts(codes)[composer], grid)
    return [(step * grid.step * HOP / SAMPLING_RATE, pitch) for step, pitch in sorted(notes)]


def match_onsets(cover: Sequence[Onset], expected: Sequence[Onset]) -> OnsetCounts:
    """Count correct onsets. Each expected onset matches the nearest unmatched one of its pitch."""
    unmatched, correct = list(cover), 0
    for seconds, pitch in expected:
        candidates = [
            onset
            for onset in unmatched
            if onset[1] == pitch and abs(onset[0] - seconds) <= ONSET_TOLERANCE
        ]
        if candidates:
            unmatched.remove(min(candidates, key=lambda onset: abs(onset[0] - seconds)))
            correct += 1
    return OnsetCounts(correct, len(cover), len(expected))


def cover_table(counts: Mapping[str, Sequence[OnsetCounts]]) -> str:
    """Return a Markdown table: figures over all notes, and the mean F1 of the songs."""
    lines = [
        "| composer | songs | note onset F1 | precision | recall | F1, mean of songs |",
        "|---|---|---|---|---|---|",
    ]
    for name, covers in counts.items():
        if covers:
            total = OnsetCounts(
                sum(cover.correct for cover in covers),
                sum(cover.written for cover in covers),
                sum(cover.expected for cover in covers),
            )
            figures = (
                total.f1,
                total.correct / max(1, total.written),
                total.correct / max(1, total.expected),
                float(np.mean([cover.f1 for cover in covers])),
            )
            cells = " | ".join(f"{figure:.2f}" for figure in figures)
            lines.append(f"| {name} | {len(covers)} | {cells} |")
    return "\n".join(lines)
