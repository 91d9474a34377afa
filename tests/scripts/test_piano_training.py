"""The cover model hears first, then writes; what of it is held back is looked at."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationMixin

from scripts.models.common.export import NotACheckpoint, load_weights
from scripts.models.common.train import (
    CHECKPOINT,
    PianoTraining,
    TrainingConfig,
    _parse_arguments,
    build_optimizers,
    train_piano,
    training_step,
)
from scripts.models.piano.dataset import (
    PianoBatch,
    Row,
    SongConfig,
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
    ONSET_HEAD,
    PITCHES,
    POSITION_BIAS,
    SILENCE,
    OnsetTargets,
    PianoConfig,
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
# A model of which a step takes milliseconds.
SMALL = PianoConfig(width=32, head_width=8, feed_forward_width=32, layers=1)


def row(length: int, *tokens: int) -> Row:
    return Row(torch.randn(length, SMALL.width), ([END_TOKEN], list(tokens), [*BEGIN, END_TOKEN]))


@pytest.fixture
def batch() -> PianoBatch:
    torch.manual_seed(0)
    return make_batch([(row(33, *BEGIN, *LATER), 1), (row(41, *BEGIN, END_TOKEN), 1)])


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    generated = build_piano_model(SMALL)
    generated.set_attn_implementation("eager")
    return generated


def test_batch_is_padded_to_the_longest_row(batch: PianoBatch) -> None:
    assert batch.mel_frames.shape == (2, 41, SMALL.width)
    assert (batch.mel_frames[0, 33:] == SILENCE).all()
    assert batch.tokens.tolist() == [[*BEGIN, *LATER], [*BEGIN, END_TOKEN, IGNORED, IGNORED]]
    assert batch.onset_steps.tolist() == [
        [IGNORED, 0, IGNORED, 3, IGNORED],
        [IGNORED, 0] + 3 * [IGNORED],
    ]
    assert batch.weights[0].tolist() == pytest.approx([0.3, 1, 1, 1, 1])
    assert batch.weights[1].tolist() == pytest.approx([0.3, 1, 1, 0, 0])


def test_targets_of_each_frame(batch: PianoBatch) -> None:
    steps = batch.targets.steps
    assert steps[0, :33].tolist() == sorted(steps[0, :33].tolist())
    assert set(steps[0, :33].tolist()) == set(range(STEPS_PER_ROW))
    assert (steps[0, 33:] == IGNORED).all()
    assert steps[1, [0, 14, 15, 40]].tolist() == [
        0,
        3,
        3,
        STEPS_PER_ROW - 1,
    ]  # step 3 is at frame 15
    notes = frame_notes(batch.targets)
    assert {tuple(place) for place in notes[0, 12].nonzero().tolist()} == {(1, 64)}
    assert {tuple(place) for place in notes[0, 0].nonzero().tolist()} == {(1, 60), (2, 60)}


def scores(targets: OnsetTargets) -> torch.Tensor:
    """What a perfect ear says, composer first."""
    frames = torch.full((*targets.steps.shape, STEPS_PER_ROW), -20.0)
    frames.scatter_(2, targets.steps.clamp(min=0)[..., None], 20.0)
    logits = torch.cat([frames, 40 * frame_notes(targets).flatten(2) - 20], dim=2)
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


def test_perfect_prediction_has_no_loss_and_padding_is_ignored(batch: PianoBatch) -> None:
    perfect = scores(batch.targets)
    assert onset_losses(torch.nn.Identity(), perfect, batch.targets).max() < 1e-4
    changed = perfect.clone()
    changed[0, 34:] *= -1  # of the shorter row what is over
    assert onset_losses(torch.nn.Identity(), changed, batch.targets).max() < 1e-4
    changed[0, 33] *= -1
    assert onset_losses(torch.nn.Identity(), changed, batch.targets).min() > 0.1


def test_untrained_head_predicts_few_notes() -> None:
    generated = build_onset_head(SMALL.width)
    steps, notes = onset_logits(generated, torch.randn(1, 3, SMALL.width))
    assert steps.shape == (1, 2, STEPS_PER_ROW)
    assert notes.shape == (1, 2, len(COMPOSERS), PITCHES)
    assert (notes == INITIAL_LOGIT).all()


def test_attention_on_the_step_of_a_note(batch: PianoBatch) -> None:
    tokens, frames = batch.tokens.shape[1], batch.mel_frames.shape[1]
    attention = torch.zeros(2, 4, tokens, 1 + frames)
    attention[..., 1] = 1.0  # all look at the first frame: step 0
    shares = step_attention([attention], batch.onset_steps, batch.targets)
    assert shares.shape == (3, 1, 4)
    assert shares[:, 0, 0].tolist() == [1, 0, 1]  # the second note begins at step 3
    attention[0, :2, 3] = 0
    attention[0, :2, 3, 1 + 12] = 1.0  # now two heads look there
    aligned = step_attention([attention], batch.onset_steps, batch.targets)
    assert aligned[1, 0].tolist() == [1, 1, 0, 0]
    assert alignment_loss(aligned) < 1e-3 < alignment_loss(shares)


def test_cover_metrics_compare_onsets(
    model: Any, batch: PianoBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = batch.tokens.clamp(min=0)
    monkeypatch.setattr(GenerationMixin, "generate", lambda *_, **__: generated)
    assert cover_metrics(model, [batch])["note f1"] == 1.0
    generated[0, 3] += 1  # another pitch: two of three are right
    assert cover_metrics(model, [batch])["note f1"] == pytest.approx(2 / 3)


def test_untrained_model_respects_the_row_limit(model: Any, batch: PianoBatch) -> None:
    generated = GenerationMixin.generate(model, inputs_embeds=encoder_inputs(model, batch))
    assert generated.shape[0] == 2
    assert generated.shape[1] <= MAX_ROW_TOKENS
    assert 0 <= cover_metrics(model, [batch])["looked"] <= 1


def test_training_reduces_all_losses(model: Any, codec: Any) -> None:
    """Two rows of one song, learned by heart, show that each loss reaches the weights."""
    rows = list(song_rows(codec, feature_extractor(SMALL.width), "cover/toy"))
    song = make_batch([(row, 0) for row in rows[:2]])
    head = build_onset_head(SMALL.width)
    parameters = dict(model.named_parameters())
    parameters |= {ONSET_HEAD + n: p for n, p in head.named_parameters()}
    optimizers = build_optimizers(parameters, POSITION_BIAS)
    initial = piano_losses(model, head, song)
    for _ in range(60):
        training_step(parameters, optimizers, 2e-2, lambda _: piano_losses(model, head, song), 0)
    final = piano_losses(model, head, song)
    assert (final < 0.5 * initial).all(), (initial, final)


def run_short_training(folder: Path, deadline: float) -> bool:
    """Train for two steps in each stage, with two songs."""
    torch.manual_seed(0)
    songs = SongConfig(songs=2, songs_per_file=1, held_out_songs=1, rows_per_step=4)
    training = PianoTraining(encoder_steps=2, model=SMALL, songs=songs)
    return train_piano(TrainingConfig(folder, 2, 1e-3, 0.5, deadline), training)


def test_interrupted_piano_training_gives_the_same_weights(tmp_path: Path) -> None:
    assert run_short_training(tmp_path / "whole", math.inf)
    # The same rendered songs: rendering takes most of the time.
    shutil.copytree(tmp_path / "whole" / "songs", tmp_path / "parts" / "songs")
    runs = [run_short_training(tmp_path / "parts", -1.0) for _ in range(3)]
    assert runs == [False, False, True]
    weights = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_command_trains_the_shipped_model_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", "piano", "folder"])
    options = _parse_arguments()
    training = PianoTraining(options.seed, songs=SongConfig(options.songs))
    assert training == PianoTraining()


def test_training_only_weights_are_not_exported(tmp_path: Path, model: Any) -> None:
    weights = dict(model.named_parameters()) | {ONSET_HEAD + "bias": torch.zeros(1)}
    torch.save({"model": weights}, tmp_path / CHECKPOINT)
    load_weights(model, tmp_path / CHECKPOINT)
    torch.save({"model": weights | {"other": torch.zeros(1)}}, tmp_path / CHECKPOINT)
    with pytest.raises(NotACheckpoint, match="another model"):
        load_weights(model, tmp_path / CHECKPOINT)
