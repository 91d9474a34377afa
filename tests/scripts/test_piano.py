"""What Pop2Piano learns to write is what its tokenizer reads."""

import json
import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import Pop2PianoTokenizer

from scripts.embedded_model import cover, covering, notation, piano
from scripts.embedded_model.piano import COMPOSERS, STEPS, VOCABULARY, Grid, Stroke
from scripts.embedded_model.worker import Worker


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
    found = piano.on_grid(piano.parts(codes)[composer], grid)
    for row in range(grid.rows(700)):
        tokens = np.array(piano.written(found, row))
        notes = reader.relative_tokens_ids_to_notes(tokens, STEPS * row, STEPS * row + piano.LAST)
        read = {(int(start), int(pitch)) for start, _, pitch, _ in notes}
        due = {(step, pitch) for step, pitch in found if step // STEPS == row}
        assert read == due
        ends = {(int(start), int(pitch)): int(end) for start, end, pitch, _ in notes}
        assert ends == {one: until(found, one) for one in due}
        assert piano.begun(tokens) == {(step - STEPS * row, pitch) for step, pitch in due}


def until(found: dict[tuple[int, int], int], one: tuple[int, int]) -> int:
    """A note's end: at the latest where its pitch begins anew, or its row is over."""
    step, pitch = one
    over = (step // STEPS + 1) * STEPS
    return min([found[one], over, *(at for at, other in found if other == pitch and at > step)])


def test_what_tokens_say() -> None:
    words = ["1_TOKEN_VELOCITY", "60_TOKEN_NOTE", "2_TOKEN_TIME", "0_TOKEN_VELOCITY"]
    tokens = [*(VOCABULARY[word] for word in (*words, "60_TOKEN_NOTE")), piano.END]
    found = [(word.kind, word.number, word.step) for word in piano.said(tokens)]
    assert found == [
        ("VELOCITY", 1, 0), ("begun", 60, 0), ("TIME", 2, 2), ("VELOCITY", 0, 2), ("ended", 60, 2),
        ("SPECIAL", piano.END, 2),
    ]  # fmt: skip
    late = [VOCABULARY["8_TOKEN_TIME"], *tokens[:2]]
    assert piano.begun([0, *tokens, *tokens[:2]]) == {(0, 60)}  # what follows the end is nothing
    assert piano.begun(late) == set()  # the next row's


def test_what_begins_off_the_grid_is_left_out() -> None:
    grid = Grid(0.0, 10.0)
    strokes = [Stroke(0, 60, 40), Stroke(5, 62, 9), Stroke(21, 64, 22)]
    assert piano.on_grid(strokes, grid) == {(0, 60): 4, (2, 64): 3}


def test_composers_play_their_books() -> None:
    codes = notation.piece("piano/0", 400)[2]
    full, thin, low = (set(part) for part in piano.parts(codes).values())
    assert thin < full > low


def test_grids_are_where_a_beat_tracker_looks() -> None:
    chance = random.Random(1)
    for frames in (5, 6, 7, 8, 10, 11, 12):
        beats = {round(cover.grid(frames, chance).step * 2) for _ in range(20)}
        assert all(cover.SLOWEST <= 3_000 / beat <= cover.FASTEST for beat in beats)


def test_frames_look_near_everywhere_before_and_after() -> None:
    torch.manual_seed(0)
    model = cover.untrained()
    with torch.no_grad():
        biases = model.encoder.block[0].layer[0].SelfAttention.compute_bias(9, 9)[0]
    near, everywhere, before, after = biases.softmax(-1)[:, 4]  # of the fifth of nine frames
    assert near.argmax() == 4
    assert torch.allclose(everywhere, everywhere[0])
    assert before[:5].sum() > 0.99
    assert after[4:].sum() > 0.99


def test_onsets_match_once() -> None:
    due = [(0.0, 60), (1.0, 60), (2.0, 64)]
    assert covering.matched(due, due).f1 == 1.0
    assert covering.matched([(0.05, 60)], due).right == 1
    assert covering.matched([(0.5, 60), (2.0, 65)], due).right == 0


def test_the_table_counts_notes_and_songs() -> None:
    covers = [covering.Heard(1, 1, 1), covering.Heard(0, 3, 1)]  # a short one right, one wrong
    row = covering.table({"composer1": covers, "composer2": []}).splitlines()[-1]
    assert row == "| composer1 | 2 | 0.33 | 0.25 | 0.50 | 0.50 |"


def test_chance_is_the_same_composers_cover_of_another_song(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With covers that are right, chance is what two songs of a composer have in common."""
    monkeypatch.setattr(covering, "FRAMES", 200)
    count = 2 * len(COMPOSERS)
    due = iter([covering.onsets(covering.song(n), name) for n, name in asked(count)])

    class Right:
        def cover(self, _: Any, __: str) -> list[covering.Onset]:
            return next(due)

    found = covering.judged(written, cast(Worker, Right()), count)
    assert all(one.f1 == 1.0 for name in COMPOSERS for one in found[name])
    assert len(found["chance"]) == len(COMPOSERS)
    songs = [covering.onsets(covering.song(n), name) for n, name in asked(count)]
    one, other = songs[0], songs[len(COMPOSERS)]
    assert found["chance"][0] == covering.matched(one, other)


def asked(count: int) -> list[tuple[int, str]]:
    return [(n, list(COMPOSERS)[n % len(COMPOSERS)]) for n in range(count)]
