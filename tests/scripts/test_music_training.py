"""Training stops and goes on as if it had not stopped."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.models.common.train import (
    CAPTION_STAGE,
    CHECKPOINT,
    PRINT_STEPS,
    MusicTraining,
    TrainingConfig,
    build_optimizers,
    run_training,
    train_music,
    training_step,
)
from scripts.models.music.captions import is_held_out
from scripts.models.music.codec import codec_config
from scripts.models.music.dataset import (
    ATTRIBUTE_CLASSES,
    ATTRIBUTE_VALUES,
    SHIPPED_BATCHES,
    BatchConfig,
    attribute_losses,
    attribute_targets,
    draw_captions,
    draw_music_batch,
    music_losses,
)
from scripts.models.music.model import (
    MusicConfig,
    build_music_model,
    build_tokenizer,
    codebook_losses,
)
from scripts.models.music.tokens import BOOKS

# A model of which a step takes milliseconds.
SMALL = MusicConfig(
    text_width=32, text_feed_forward_width=32, text_layers=1,
    width=64, feed_forward_width=64, layers=1,
)  # fmt: skip
SMALL_BATCHES = BatchConfig(captions=4, openings=(2, 12), short_crops=(2, 12), long_crops=(2, 12))


def toy() -> tuple[dict[str, torch.nn.Parameter], Callable[[int], torch.Tensor]]:
    """A matrix and a vector that learn a line, each step from its own numbers."""
    torch.manual_seed(1)
    parameters = {
        "line.weight": torch.nn.Parameter(torch.randn(4, 4)),
        "line.bias": torch.nn.Parameter(torch.zeros(4)),
    }

    def losses(step: int) -> torch.Tensor:
        torch.manual_seed(step)
        batch = torch.randn(16, 4)
        prediction = batch @ parameters["line.weight"] + parameters["line.bias"]
        return ((prediction - batch.flip(1)) ** 2).mean(0)[:2]

    return parameters, losses


def test_interrupted_training_gives_the_same_weights(tmp_path: Path) -> None:
    whole, losses = toy()
    run_training(whole, TrainingConfig(tmp_path / "a", 30, 0.01, 0.5, math.inf), losses, ("x", "y"))
    completed = []
    for _ in range(31):  # each run stops after its first step
        parts, losses = toy()
        config = TrainingConfig(tmp_path / "b", 30, 0.01, 0.5, -1.0)
        completed.append(run_training(parts, config, losses, ("x", "y")))
    assert completed == [False] * 29 + [True] * 2
    for name, parameter in whole.items():
        assert torch.equal(parameter, parts[name])
    assert torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)["step"] == 30


def test_training_reduces_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters, losses = toy()
    initial = losses(99).mean()
    run_training(parameters, TrainingConfig(tmp_path, 60, 0.3, 0.5, math.inf), losses, ("x", "y"))
    assert losses(99).mean() < initial / 2
    assert '"step": 60' in capsys.readouterr().out


def test_output_line_has_the_mean_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters, losses = toy()
    expected = losses(0)

    def repeated(_: int) -> torch.Tensor:
        return losses(0) * 0 + expected.detach()

    for _ in range(PRINT_STEPS):
        run_training(
            parameters, TrainingConfig(tmp_path, 20, 0.01, 0.5, -1.0), repeated, ("x", "y"), watch
        )
    line = json.loads(capsys.readouterr().out)
    assert (line["x"], line["y"]) == tuple(round(loss, 4) for loss in expected.tolist())
    assert line["seen"] == 0.25


def watch() -> dict[str, float]:
    return {"seen": 0.25}


def test_fast_part_has_ten_times_the_learning_rate() -> None:
    parameters, losses = toy()
    initial = parameters["line.bias"].detach().clone()
    optimizers = build_optimizers(parameters, "line.bias")
    training_step(parameters, optimizers, 1e-3, losses, 0)
    assert torch.allclose(
        (parameters["line.bias"] - initial).abs()[:2], torch.tensor(1e-2), rtol=1e-3
    )


def test_learning_rate_schedule() -> None:
    config = TrainingConfig(Path(), 1_000, 2.0, 0.25, math.inf)
    assert [config.learning_rate(step) for step in (0, 49, 99, 750)] == [0.02, 1.0, 2.0, 2.0]
    assert config.learning_rate(875) == pytest.approx(1.0)
    assert config.learning_rate(999) == pytest.approx(0.04)


def test_losses_are_per_book_and_depend_on_the_caption() -> None:
    torch.manual_seed(0)
    tokenize = build_tokenizer()
    model = build_music_model(len(tokenize), codec_config(), SMALL)
    batch = draw_music_batch(tokenize, 0, 0, longer=False)
    count, length = SHIPPED_BATCHES.openings
    assert batch.columns.shape == (count, len(BOOKS), length)
    with torch.no_grad():
        losses_per_step = music_losses(model, batch, "cpu")
        without_caption = codebook_losses(
            model, batch.text, torch.zeros_like(batch.mask), batch.columns
        )
    assert losses_per_step.shape == (len(BOOKS),)
    assert torch.isfinite(without_caption).all()
    assert not torch.allclose(losses_per_step, without_caption)


def test_text_encoder_learns_the_mode() -> None:
    """Eighty small steps on captions alone separate major from minor better than chance."""
    torch.manual_seed(0)
    tokenize = build_tokenizer()
    model = build_music_model(len(tokenize), codec_config(), SMALL)
    head = torch.nn.Linear(SMALL.width, ATTRIBUTE_CLASSES)
    parameters = dict(model.text_encoder.named_parameters()) | dict(head.named_parameters())
    optimizers = build_optimizers(parameters)

    def losses(step: int) -> torch.Tensor:
        return attribute_losses(model, head, tokenize, draw_captions(0, step, 32), "cpu")

    losses_per_step = [
        training_step(parameters, optimizers, 1e-2, losses, step) for step in range(80)
    ]
    mode = list(ATTRIBUTE_VALUES).index("mode")
    # The mean of five steps: a single small batch is noisy. Chance is ln 2 = 0.69.
    initial, final = (
        torch.stack(part)[:, mode].mean() for part in (losses_per_step[:5], losses_per_step[-5:])
    )
    assert initial > 0.65 > final


def test_captions_of_a_step_are_not_held_out() -> None:
    batch = draw_captions(0, 3)
    assert batch == draw_captions(0, 3) != draw_captions(0, 4)
    assert len(batch) == SHIPPED_BATCHES.captions
    assert not any(is_held_out(brief) for brief, _ in batch)
    for name in ATTRIBUTE_VALUES:
        assert attribute_targets(name, batch, "cpu").shape == (SHIPPED_BATCHES.captions,)


def test_crops_grow_longer() -> None:
    tokenize = build_tokenizer()
    batches = SHIPPED_BATCHES
    for step, longer, (count, length) in (
        (1, False, batches.short_crops), (3, True, batches.long_crops),
    ):  # fmt: skip
        columns = draw_music_batch(tokenize, 0, step, longer=longer).columns
        assert columns.shape == (count, len(BOOKS), length)


def test_batches_depend_on_seed_and_step_only() -> None:
    tokenize = build_tokenizer()
    batch, repeated, next_batch = (
        draw_music_batch(tokenize, 0, step, longer=False) for step in (5, 5, 6)
    )
    assert torch.equal(batch.columns, repeated.columns)
    assert torch.equal(batch.text, repeated.text)
    assert not torch.equal(batch.columns, next_batch.columns)
    assert not torch.equal(draw_music_batch(tokenize, 1, 5, longer=False).columns, batch.columns)


def test_interrupted_music_training_gives_the_same_weights(tmp_path: Path) -> None:
    """Stopped after each step, through both stages, the weights are those of one run."""
    training = MusicTraining(caption_steps=2, model=SMALL, batches=SMALL_BATCHES)

    def run(folder: Path, until: float) -> bool:
        torch.manual_seed(0)
        return train_music(TrainingConfig(folder, 2, 2e-3, 0.3, until), training)

    last = tmp_path / "parts" / CHECKPOINT
    assert not run(last.parent, -1.0)
    assert not last.exists()
    assert not run(last.parent, -1.0)
    assert run(last.parent, -1.0)
    assert run(tmp_path / "whole", math.inf)
    for place in ("", CAPTION_STAGE):
        whole, parts = (
            torch.load(tmp_path / folder / place / CHECKPOINT, weights_only=True)
            for folder in ("whole", "parts")
        )
        assert whole["step"] == parts["step"] == 2
        for name, weights in whole["model"].items():
            assert torch.equal(weights, parts["model"][name]), name
