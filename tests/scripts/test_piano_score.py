"""What Pop2Piano learns to write is what its tokenizer reads."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Pop2PianoTokenizer

from scripts.models.music.tokens import compose_piece
from scripts.models.piano import evaluate
from scripts.models.piano.dataset import FASTEST_BEAT, SLOWEST_BEAT, _draw_grid
from scripts.models.piano.evaluate import (
    OnsetCounts,
    cover_table,
    expected_onsets,
    held_out_song,
    match_onsets,
    score_covers,
)
from scripts.models.piano.model import build_piano_model
from scripts.models.piano.score import (
    COMPOSERS,
    END_TOKEN,
    MAX_TIME_STEPS,
    STEPS_PER_ROW,
    VOCABULARY,
    Grid,
    PianoNote,
    decode_row,
    encode_row,
    note_onsets,
    piano_parts,
    quantize,
)


@pytest.fixture
def reader(tmp_path: Path) -> Any:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(VOCABULARY))
    return Pop2PianoTokenizer(str(path))


@pytest.mark.parametrize("composer", COMPOSERS)
@pytest.mark.parametrize("number", range(6))
def test_rows_decode_to_the_encoded_notes(reader: Any, composer: str, number: int) -> None:
    brief, _, codes = compose_piece(f"piano/{number}", 700)
    grid = Grid(0.0, 2.0 * brief.frames)
    decoded = quantize(piano_parts(codes)[composer], grid)
    for row in range(grid.rows(700)):
        tokens = np.array(encode_row(decoded, row))
        notes = reader.relative_tokens_ids_to_notes(
            tokens, STEPS_PER_ROW * row, STEPS_PER_ROW * row + MAX_TIME_STEPS
        )
        read = {(int(start), int(pitch)) for start, _, pitch, _ in notes}
        expected = {(step, pitch) for step, pitch in decoded if step // STEPS_PER_ROW == row}
        assert read == expected
        ends = {(int(start), int(pitch)): int(end) for start, end, pitch, _ in notes}
        assert ends == {note: until(decoded, note) for note in expected}
        assert note_onsets(tokens) == {
            (step - STEPS_PER_ROW * row, pitch) for step, pitch in expected
        }


def until(decoded: dict[tuple[int, int], int], note: tuple[int, int]) -> int:
    """A note's end: at the latest where its pitch begins anew, or its row is over."""
    step, pitch = note
    row_end = (step // STEPS_PER_ROW + 1) * STEPS_PER_ROW
    return min(
        [
            decoded[note],
            row_end,
            *(step_at for step_at, second in decoded if second == pitch and step_at > step),
        ]
    )


def test_meaning_of_row_tokens() -> None:
    words = ["1_TOKEN_VELOCITY", "60_TOKEN_NOTE", "2_TOKEN_TIME", "0_TOKEN_VELOCITY"]
    tokens = [*(VOCABULARY[word] for word in (*words, "60_TOKEN_NOTE")), END_TOKEN]
    decoded = [(word.kind, word.number, word.step) for word in decode_row(tokens)]
    assert decoded == [
        ("VELOCITY", 1, 0), ("onset", 60, 0), ("TIME", 2, 2), ("VELOCITY", 0, 2),
        ("release", 60, 2), ("SPECIAL", END_TOKEN, 2),
    ]  # fmt: skip
    late = [VOCABULARY["8_TOKEN_TIME"], *tokens[:2]]
    assert note_onsets([0, *tokens, *tokens[:2]]) == {(0, 60)}  # what follows the end is nothing
    assert note_onsets(late) == set()  # the next row's


def test_notes_off_the_grid_are_omitted() -> None:
    grid = Grid(0.0, 10.0)
    strokes = [PianoNote(0, 60, 40), PianoNote(5, 62, 9), PianoNote(21, 64, 22)]
    assert quantize(strokes, grid) == {(0, 60): 4, (2, 64): 3}


def test_composers_play_their_instruments() -> None:
    codes = compose_piece("piano/0", 400)[2]
    full, thin, low = (set(part) for part in piano_parts(codes).values())
    assert thin < full > low


def test_grid_tempo_is_in_the_beat_trackers_range() -> None:
    rng = random.Random(1)
    for frames in (5, 6, 7, 8, 10, 11, 12):
        beats = {round(_draw_grid(frames, rng).step * 2) for _ in range(20)}
        assert all(SLOWEST_BEAT <= 3_000 / beat <= FASTEST_BEAT for beat in beats)


def test_initial_attention_looks_near_everywhere_before_and_after() -> None:
    torch.manual_seed(0)
    model = build_piano_model()
    with torch.no_grad():
        biases = model.encoder.block[0].layer[0].SelfAttention.compute_bias(9, 9)[0]
    near, everywhere, before, after = biases.softmax(-1)[:, 4]  # of the fifth of nine frames
    assert near.argmax() == 4
    assert torch.allclose(everywhere, everywhere[0])
    assert before[:5].sum() > 0.99
    assert after[4:].sum() > 0.99


def test_each_onset_matches_once() -> None:
    expected = [(0.0, 60), (1.0, 60), (2.0, 64)]
    assert match_onsets(expected, expected).f1 == 1.0
    assert match_onsets([(0.05, 60)], expected).correct == 1
    assert match_onsets([(0.5, 60), (2.0, 65)], expected).correct == 0


def test_cover_table_averages_notes_and_songs() -> None:
    covers = [OnsetCounts(1, 1, 1), OnsetCounts(0, 3, 1)]  # a short one right, one wrong
    row = cover_table({"composer1": covers, "composer2": []}).splitlines()[-1]
    assert row == "| composer1 | 2 | 0.33 | 0.25 | 0.50 | 0.50 |"


def test_chance_compares_covers_of_other_songs(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With covers that are right, chance is what two songs of a composer have in common."""
    monkeypatch.setattr(evaluate, "SONG_FRAMES", 200)
    count = 2 * len(COMPOSERS)
    expected = iter([expected_onsets(held_out_song(n), name) for n, name in asked(count)])

    scores = score_covers(codec, lambda song, composer: next(expected), count)
    assert all(counts.f1 == 1.0 for name in COMPOSERS for counts in scores[name])
    assert len(scores["chance"]) == len(COMPOSERS)
    songs = [expected_onsets(held_out_song(n), name) for n, name in asked(count)]
    first, second = songs[0], songs[len(COMPOSERS)]
    assert scores["chance"][0] == match_onsets(first, second)


def asked(count: int) -> list[tuple[int, str]]:
    return [(n, list(COMPOSERS)[n % len(COMPOSERS)]) for n in range(count)]
