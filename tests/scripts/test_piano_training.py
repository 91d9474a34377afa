"""The cover model hears first, then writes; what of it is held back is looked at."""

import argparse
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationMixin

from scripts.models.common import train
from scripts.models.common.export import load_weights
from scripts.models.common.train import (
    CHECKPOINT,
    TrainingConfig,
    build_optimizers,
    train_piano,
    training_step,
)
from scripts.models.piano import dataset
from scripts.models.piano.dataset import (
    PianoBatch,
    Row,
    encoder_inputs,
    make_batch,
    piano_losses,
    song_rows,
)
from scripts.models.piano.evaluate import cover_metrics
from scripts.models.piano.model import (
    IGNORED,
    INITIAL_LOGIT,
    MAX_ROW_TOKENS,
    MODEL_WIDTH,
    ONSET_HEAD,
    PITCHES,
    POSITION_BIAS,
    SILENCE,
    OnsetTargets,
    alignment_loss,
    build_onset_head,
    build_piano_model,
    feature_extractor,
    frame_notes,
    onset_logits,
    onset_losses,
    step_attention,
)
from scripts.models.piano.score import COMPOSERS, END_TOKEN, STEPS_PER_ROW, VOCABULARY

BEGIN = [VOCABULARY["1_TOKEN_VELOCITY"], VOCABULARY["60_TOKEN_NOTE"]]
LATER = [VOCABULARY["3_TOKEN_TIME"], VOCABULARY["64_TOKEN_NOTE"], END_TOKEN]


def row(length: int, *tokens: int) -> Row:
    return Row(torch.randn(length, MODEL_WIDTH), ([END_TOKEN], list(tokens), [*BEGIN, END_TOKEN]))


@pytest.fixture
def given() -> PianoBatch:
    torch.manual_seed(0)
    return make_batch([(row(33, *BEGIN, *LATER), 1), (row(41, *BEGIN, END_TOKEN), 1)])


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    made = build_piano_model()
    made.set_attn_implementation("eager")
    return made


def test_batch_is_padded_to_the_longest_row(given: PianoBatch) -> None:
    assert given.mel_frames.shape == (2, 41, MODEL_WIDTH)
    assert (given.mel_frames[0, 33:] == SILENCE).all()
    assert given.tokens.tolist() == [[*BEGIN, *LATER], [*BEGIN, END_TOKEN, IGNORED, IGNORED]]
    assert given.onset_steps.tolist() == [
        [IGNORED, 0, IGNORED, 3, IGNORED],
        [IGNORED, 0] + 3 * [IGNORED],
    ]
    assert given.weights[0].tolist() == pytest.approx([0.3, 1, 1, 1, 1])
    assert given.weights[1].tolist() == pytest.approx([0.3, 1, 1, 0, 0])


def test_targets_of_each_frame(given: PianoBatch) -> None:
    steps = given.targets.steps
    assert steps[0, :33].tolist() == sorted(steps[0, :33].tolist())
    assert set(steps[0, :33].tolist()) == set(range(STEPS_PER_ROW))
    assert (steps[0, 33:] == IGNORED).all()
    assert steps[1, [0, 14, 15, 40]].tolist() == [
        0,
        3,
        3,
        STEPS_PER_ROW - 1,
    ]  # step 3 is at frame 15
    notes = frame_notes(given.targets)
    assert {tuple(place) for place in notes[0, 12].nonzero().tolist()} == {(1, 64)}
    assert {tuple(place) for place in notes[0, 0].nonzero().tolist()} == {(1, 60), (2, 60)}


def scores(due: OnsetTargets) -> torch.Tensor:
    """What a perfect ear says, composer first."""
    frames = torch.full((*due.steps.shape, STEPS_PER_ROW), -20.0)
    frames.scatter_(2, due.steps.clamp(min=0)[..., None], 20.0)
    told = torch.cat([frames, 40 * frame_notes(due).flatten(2) - 20], dim=2)
    return torch.cat([torch.zeros_like(told[:, :1]), told], dim=1)


def test_perfect_prediction_has_no_loss_and_padding_is_ignored(given: PianoBatch) -> None:
    perfect = scores(given.targets)
    assert onset_losses(torch.nn.Identity(), perfect, given.targets).max() < 1e-4
    changed = perfect.clone()
    changed[0, 34:] *= -1  # of the shorter row what is over
    assert onset_losses(torch.nn.Identity(), changed, given.targets).max() < 1e-4
    changed[0, 33] *= -1
    assert onset_losses(torch.nn.Identity(), changed, given.targets).min() > 0.1


def test_untrained_head_predicts_few_notes() -> None:
    made = build_onset_head(MODEL_WIDTH)
    steps, notes = onset_logits(made, torch.randn(1, 3, MODEL_WIDTH))
    assert steps.shape == (1, 2, STEPS_PER_ROW)
    assert notes.shape == (1, 2, len(COMPOSERS), PITCHES)
    assert (notes == INITIAL_LOGIT).all()


def test_attention_on_the_step_of_a_note(given: PianoBatch) -> None:
    tokens, frames = given.tokens.shape[1], given.mel_frames.shape[1]
    attention = torch.zeros(2, 4, tokens, 1 + frames)
    attention[..., 1] = 1.0  # all look at the first frame: step 0
    shares = step_attention([attention], given.onset_steps, given.targets)
    assert shares.shape == (3, 1, 4)
    assert shares[:, 0, 0].tolist() == [1, 0, 1]  # the second note begins at step 3
    attention[0, :2, 3] = 0
    attention[0, :2, 3, 1 + 12] = 1.0  # now two heads look there
    found = step_attention([attention], given.onset_steps, given.targets)
    assert found[1, 0].tolist() == [1, 1, 0, 0]
    assert alignment_loss(found) < 1e-3 < alignment_loss(shares)


def test_cover_metrics_compare_onsets(
    model: Any, given: PianoBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = given.tokens.clamp(min=0)
    monkeypatch.setattr(GenerationMixin, "generate", lambda *_, **__: made)
    assert cover_metrics(model, [given])["note f1"] == 1.0
    made[0, 3] += 1  # another pitch: two of three are right
    assert cover_metrics(model, [given])["note f1"] == pytest.approx(2 / 3)


def test_untrained_model_respects_the_row_limit(model: Any, given: PianoBatch) -> None:
    made = GenerationMixin.generate(model, inputs_embeds=encoder_inputs(model, given))
    assert made.shape[0] == 2
    assert made.shape[1] <= MAX_ROW_TOKENS
    assert 0 <= cover_metrics(model, [given])["looked"] <= 1


def test_training_reduces_all_losses(model: Any, written: Any) -> None:
    """By heart, from one song's rows: enough to see that what is told reaches the weights."""
    heard = list(song_rows(written, feature_extractor(), "cover/toy"))
    one = make_batch([(row, 0) for row in heard])
    head = build_onset_head(MODEL_WIDTH)
    learned = dict(model.named_parameters())
    learned |= {ONSET_HEAD + n: p for n, p in head.named_parameters()}
    used = build_optimizers(learned, POSITION_BIAS)
    before = piano_losses(model, head, one)
    for _ in range(30):
        training_step(learned, used, 3e-3, lambda _: piano_losses(model, head, one), 0)
    after = piano_losses(model, head, one)
    assert (after < 0.8 * before).all(), (before, after)


def small(folder: Path, until: float, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Two steps of each, of two songs."""
    for module, name, value in (
        (dataset, "SONGS_PER_FILE", 1), (dataset, "HELD_OUT_SONGS", 1), (train, "ENCODER_STEPS", 2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    torch.manual_seed(0)
    options = argparse.Namespace(seed=0, songs=2)
    return train_piano(TrainingConfig(folder, 2, 1e-3, 0.5, until), options)


def test_interrupted_piano_training_gives_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small(tmp_path / "whole", math.inf, monkeypatch)
    # The same rendered songs: rendering takes most of the time.
    shutil.copytree(tmp_path / "whole" / "songs", tmp_path / "parts" / "songs")
    runs = [small(tmp_path / "parts", -1.0, monkeypatch) for _ in range(3)]
    assert runs == [False, False, True]
    kept = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_training_only_weights_are_not_exported(tmp_path: Path, model: Any) -> None:
    weights = dict(model.named_parameters()) | {ONSET_HEAD + "bias": torch.zeros(1)}
    torch.save({"model": weights}, tmp_path / CHECKPOINT)
    load_weights(model, tmp_path / CHECKPOINT)
    torch.save({"model": weights | {"other": torch.zeros(1)}}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="another model"):
        load_weights(model, tmp_path / CHECKPOINT)
