"""What Pop2Piano learns to write is what its tokenizer reads."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Pop2PianoTokenizer

from scripts.embedded_model import cover, covering, notation, piano
from scripts.embedded_model.piano import COMPOSERS, STEPS, VOCABULARY, Grid, Stroke


@pytest.fixture
def reader(tmp_path: Path) -> Any:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(VOCABULARY))
    return Pop2PianoTokenizer(str(path))


@pytest.mark.parametrize("composer", COMPOSERS)
@pytest.mark.parametrize("number", range(6))
def test_rows_are_read_as_they_were_written(reader: Any, composer: str, number: int) -> None:
    brief, _, codes = notation.piece(f"piano/{number}", 700)
    grid = Grid(0.0, 2.0 * brief.frames)
    found = piano.on_grid(piano.part(codes, composer), grid)
    for row in range(grid.rows(700)):
        tokens = np.array(piano.written(found, row))
        notes = reader.relative_tokens_ids_to_notes(tokens, STEPS * row, STEPS * row + piano.LAST)
        read = {(int(start), int(pitch)): int(end) for start, end, pitch, _ in notes}
        due = {
            (step, pitch): read_end(found, row, (step, pitch))
            for step, pitch in found if step // STEPS == row
        }  # fmt: skip
        assert read == due


def read_end(found: dict[tuple[int, int], int], row: int, note: tuple[int, int]) -> int:
    """Where a note ends, or its pitch begins again; if that is in the next row, at the last."""
    begin, pitch = note
    end, last = found[note], STEPS * row + piano.LAST
    again = [step for step, same in found if same == pitch and begin < step <= end]
    if not again:
        return min(end, last)
    return min(again) if min(again) // STEPS == row else last


def test_what_begins_off_the_grid_is_left_out() -> None:
    grid = Grid(0.0, 10.0)
    strokes = [Stroke(0, 60, 40), Stroke(5, 62, 9), Stroke(21, 64, 22)]
    assert piano.on_grid(strokes, grid) == {(0, 60): 4, (2, 64): 3}


def test_composers_play_their_books() -> None:
    codes = notation.piece("piano/0", 400)[2]
    full, thin, low = (set(piano.part(codes, name)) for name in COMPOSERS)
    assert thin < full > low


def test_grids_are_where_a_beat_tracker_looks() -> None:
    chance = random.Random(1)
    for frames in (5, 6, 7, 8, 10, 11, 12):
        beats = {round(cover.grid(frames, chance).step * 2) for _ in range(20)}
        assert all(cover.SLOWEST <= 3_000 / beat <= cover.FASTEST for beat in beats)


def test_rows_of_different_lengths_in_a_batch() -> None:
    rows = [cover.Row(torch.zeros(n, cover.WIDTH), ([1], [1] * n)) for n in (3, 5)]
    heard, _, words = cover.batch([(row, 1) for row in rows])
    assert heard.shape == (2, 5, cover.WIDTH)
    assert (heard[0, 3:] == cover.SILENCE).all()
    assert (words[0, 3:] == -100).all()


def test_onsets_match_once() -> None:
    due = [(0.0, 60), (1.0, 60), (2.0, 64)]
    assert covering.matched(due, due).f1 == 1.0
    assert covering.matched([(0.05, 60)], due).right == 1
    assert covering.matched([(0.5, 60), (2.0, 65)], due).right == 0
