"""The cover model hears first, then writes; what of it is held back is looked at."""

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationMixin

from scripts.embedded_model import cover, hearing, practice, shipping, songs, train, training
from scripts.embedded_model.hearing import NOTES, NOWHERE
from scripts.embedded_model.piano import COMPOSERS, END, STEPS, VOCABULARY
from scripts.embedded_model.training import CHECKPOINT, Course

BEGIN = [VOCABULARY["1_TOKEN_VELOCITY"], VOCABULARY["60_TOKEN_NOTE"]]
LATER = [VOCABULARY["3_TOKEN_TIME"], VOCABULARY["64_TOKEN_NOTE"], END]


def row(length: int, *tokens: int) -> cover.Row:
    return cover.Row(torch.randn(length, cover.WIDTH), ([END], list(tokens), [*BEGIN, END]))


@pytest.fixture
def given() -> practice.Batch:
    torch.manual_seed(0)
    return practice.batch([(row(33, *BEGIN, *LATER), 1), (row(41, *BEGIN, END), 1)])


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    made = cover.untrained()
    made.set_attn_implementation("eager")
    return made


def test_rows_of_different_lengths_in_a_batch(given: practice.Batch) -> None:
    assert given.heard.shape == (2, 41, cover.WIDTH)
    assert (given.heard[0, 33:] == cover.SILENCE).all()
    assert given.words.tolist() == [[*BEGIN, *LATER], [*BEGIN, END, NOWHERE, NOWHERE]]
    assert given.at.tolist() == [[NOWHERE, 0, NOWHERE, 3, NOWHERE], [NOWHERE, 0] + 3 * [NOWHERE]]
    assert given.counts[0].tolist() == pytest.approx([0.3, 1, 1, 1, 1])
    assert given.counts[1].tolist() == pytest.approx([0.3, 1, 1, 0, 0])


def test_what_is_due_at_each_frame(given: practice.Batch) -> None:
    steps = given.due.steps
    assert steps[0, :33].tolist() == sorted(steps[0, :33].tolist())
    assert set(steps[0, :33].tolist()) == set(range(STEPS))
    assert (steps[0, 33:] == NOWHERE).all()
    assert steps[1, [0, 14, 15, 40]].tolist() == [0, 3, 3, STEPS - 1]  # step 3 is at frame 15
    notes = hearing.spread(given.due)
    assert {tuple(place) for place in notes[0, 12].nonzero().tolist()} == {(1, 64)}
    assert {tuple(place) for place in notes[0, 0].nonzero().tolist()} == {(1, 60), (2, 60)}


def scores(due: hearing.Due) -> torch.Tensor:
    """What a perfect ear says, composer first."""
    frames = torch.full((*due.steps.shape, STEPS), -20.0)
    frames.scatter_(2, due.steps.clamp(min=0)[..., None], 20.0)
    told = torch.cat([frames, 40 * hearing.spread(due).flatten(2) - 20], dim=2)
    return torch.cat([torch.zeros_like(told[:, :1]), told], dim=1)


def test_a_perfect_ear_has_no_loss_and_padding_does_not_count(given: practice.Batch) -> None:
    perfect = scores(given.due)
    assert hearing.losses(torch.nn.Identity(), perfect, given.due).max() < 1e-4
    changed = perfect.clone()
    changed[0, 34:] *= -1  # of the shorter row what is over
    assert hearing.losses(torch.nn.Identity(), changed, given.due).max() < 1e-4
    changed[0, 33] *= -1
    assert hearing.losses(torch.nn.Identity(), changed, given.due).min() > 0.1


def test_a_head_begins_with_few_notes() -> None:
    made = hearing.head(cover.WIDTH)
    steps, notes = hearing.told(made, torch.randn(1, 3, cover.WIDTH))
    assert steps.shape == (1, 2, STEPS)
    assert notes.shape == (1, 2, len(COMPOSERS), NOTES)
    assert (notes == hearing.RARE).all()


def test_attention_to_the_steps_of_notes(given: practice.Batch) -> None:
    tokens, frames = given.words.shape[1], given.heard.shape[1]
    attention = torch.zeros(2, 4, tokens, 1 + frames)
    attention[..., 1] = 1.0  # all look at the first frame: step 0
    shares = hearing.looked([attention], given.at, given.due)
    assert shares.shape == (3, 1, 4)
    assert shares[:, 0, 0].tolist() == [1, 0, 1]  # the second note begins at step 3
    attention[0, :2, 3] = 0
    attention[0, :2, 3, 1 + 12] = 1.0  # now two heads look there
    found = hearing.looked([attention], given.at, given.due)
    assert found[1, 0].tolist() == [1, 1, 0, 0]
    assert hearing.astray(found) < 1e-3 < hearing.astray(shares)


def test_covers_are_judged_by_the_notes_that_begin(
    model: Any, given: practice.Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = given.words.clamp(min=0)
    monkeypatch.setattr(GenerationMixin, "generate", lambda *_, **__: made)
    assert practice.covers(model, [given])["note f1"] == 1.0
    made[0, 3] += 1  # another pitch: two of three are right
    assert practice.covers(model, [given])["note f1"] == pytest.approx(2 / 3)


def test_an_untrained_model_writes_at_most_a_rows_tokens(model: Any, given: practice.Batch) -> None:
    made = GenerationMixin.generate(model, inputs_embeds=practice.inputs(model, given))
    assert made.shape[0] == 2
    assert made.shape[1] <= cover.LENGTH
    assert 0 <= practice.covers(model, [given])["looked"] <= 1


def test_hearing_and_writing_are_learned(model: Any, written: Any) -> None:
    """By heart, from one song's rows: enough to see that what is told reaches the weights."""
    heard = list(cover.rows(written, cover.extractor(), "cover/toy"))
    one = practice.batch([(row, 0) for row in heard])
    head = hearing.head(cover.WIDTH)
    learned = dict(model.named_parameters())
    learned |= {hearing.HEAD + n: p for n, p in head.named_parameters()}
    used = training.optimizers(learned, cover.PLACES)
    before = practice.losses(model, head, one)
    for _ in range(30):
        training.advanced(learned, used, 3e-3, lambda _: practice.losses(model, head, one), 0)
    after = practice.losses(model, head, one)
    assert (after < 0.8 * before).all(), (before, after)


def small(folder: Path, until: float, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Two steps of each, of two songs."""
    for module, name, value in (
        (songs, "GROUP", 1), (songs, "HELD", 1), (train, "HEARING_STEPS", 2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    torch.manual_seed(0)
    options = argparse.Namespace(seed=0, songs=2)
    return train.piano(Course(folder, 2, 1e-3, 0.5, until), options)


def test_it_stops_and_goes_on_in_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small(tmp_path / "whole", math.inf, monkeypatch)
    runs = [small(tmp_path / "parts", -1.0, monkeypatch) for _ in range(3)]
    assert runs == [False, False, True]
    kept = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_what_only_hearing_needs_is_not_shipped(tmp_path: Path, model: Any) -> None:
    weights = dict(model.named_parameters()) | {hearing.HEAD + "bias": torch.zeros(1)}
    torch.save({"model": weights}, tmp_path / CHECKPOINT)
    shipping.taken(model, tmp_path / CHECKPOINT)
    torch.save({"model": weights | {"other": torch.zeros(1)}}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="another model"):
        shipping.taken(model, tmp_path / CHECKPOINT)
