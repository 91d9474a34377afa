"""Training stops and goes on as if it had not stopped."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.models.common import train
from scripts.models.common.train import (
    CAPTION_STAGE,
    CHECKPOINT,
    PRINT_STEPS,
    TrainingConfig,
    build_optimizers,
    run_training,
    train_music,
    training_step,
)
from scripts.models.music import dataset
from scripts.models.music.captions import is_held_out
from scripts.models.music.codec import codec_config
from scripts.models.music.dataset import (
    ATTRIBUTE_CLASSES,
    ATTRIBUTE_VALUES,
    CAPTIONS_PER_STEP,
    LONG_SHAPE,
    OPENING_SHAPE,
    SHORT_SHAPE,
    attribute_losses,
    attribute_targets,
    draw_captions,
    draw_music_batch,
    music_losses,
)
from scripts.models.music.model import WIDTH, build_music_model, build_tokenizer, codebook_losses
from scripts.models.music.tokens import BOOKS


def toy() -> tuple[dict[str, torch.nn.Parameter], Callable[[int], torch.Tensor]]:
    """A matrix and a vector that learn a line, each step from its own numbers."""
    torch.manual_seed(1)
    learned = {
        "line.weight": torch.nn.Parameter(torch.randn(4, 4)),
        "line.bias": torch.nn.Parameter(torch.zeros(4)),
    }

    def losses(step: int) -> torch.Tensor:
        torch.manual_seed(step)
        given = torch.randn(16, 4)
        made = given @ learned["line.weight"] + learned["line.bias"]
        return ((made - given.flip(1)) ** 2).mean(0)[:2]

    return learned, losses


def test_interrupted_training_gives_the_same_weights(tmp_path: Path) -> None:
    whole, losses = toy()
    run_training(whole, TrainingConfig(tmp_path / "a", 30, 0.01, 0.5, math.inf), losses, ("x", "y"))
    over = []
    for _ in range(31):  # each run stops after its first step
        parts, losses = toy()
        course = TrainingConfig(tmp_path / "b", 30, 0.01, 0.5, -1.0)
        over.append(run_training(parts, course, losses, ("x", "y")))
    assert over == [False] * 29 + [True] * 2
    for name, parameter in whole.items():
        assert torch.equal(parameter, parts[name])
    assert torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)["step"] == 30


def test_training_reduces_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned, losses = toy()
    before = losses(99).mean()
    run_training(learned, TrainingConfig(tmp_path, 60, 0.3, 0.5, math.inf), losses, ("x", "y"))
    assert losses(99).mean() < before / 2
    assert '"step": 60' in capsys.readouterr().out


def test_output_line_has_the_mean_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned, losses = toy()
    due = losses(0)

    def same(_: int) -> torch.Tensor:
        return losses(0) * 0 + due.detach()

    for _ in range(PRINT_STEPS):
        run_training(
            learned, TrainingConfig(tmp_path, 20, 0.01, 0.5, -1.0), same, ("x", "y"), watch
        )
    shown = json.loads(capsys.readouterr().out)
    assert (shown["x"], shown["y"]) == tuple(round(loss, 4) for loss in due.tolist())
    assert shown["seen"] == 0.25


def watch() -> dict[str, float]:
    return {"seen": 0.25}


def test_fast_part_has_ten_times_the_learning_rate() -> None:
    learned, losses = toy()
    before = learned["line.bias"].detach().clone()
    used = build_optimizers(learned, "line.bias")
    training_step(learned, used, 1e-3, losses, 0)
    assert torch.allclose((learned["line.bias"] - before).abs()[:2], torch.tensor(1e-2), rtol=1e-3)


def test_learning_rate_schedule() -> None:
    course = TrainingConfig(Path(), 1_000, 2.0, 0.25, math.inf)
    assert [course.learning_rate(step) for step in (0, 49, 99, 750)] == [0.02, 1.0, 2.0, 2.0]
    assert course.learning_rate(875) == pytest.approx(1.0)
    assert course.learning_rate(999) == pytest.approx(0.04)


def test_losses_are_per_book_and_depend_on_the_caption() -> None:
    torch.manual_seed(0)
    said = build_tokenizer()
    model = build_music_model(len(said), codec_config())
    given = draw_music_batch(said, 0, 0, longer=False)
    count, length = OPENING_SHAPE
    assert given.columns.shape == (count, len(BOOKS), length)
    with torch.no_grad():
        found = music_losses(model, given, "cpu")
        other = codebook_losses(model, given.text, torch.zeros_like(given.mask), given.columns)
    assert found.shape == (len(BOOKS),)
    assert torch.isfinite(other).all()
    assert not torch.allclose(found, other)


def test_text_encoder_learns_the_mode() -> None:
    """Forty steps of words alone are enough to tell major from minor better than chance."""
    torch.manual_seed(0)
    said = build_tokenizer()
    model = build_music_model(len(said), codec_config())
    head = torch.nn.Linear(WIDTH, ATTRIBUTE_CLASSES)
    learned = dict(model.text_encoder.named_parameters()) | dict(head.named_parameters())
    used = build_optimizers(learned)

    def told(step: int) -> torch.Tensor:
        return attribute_losses(model, head, said, draw_captions(0, step), "cpu")

    found = [training_step(learned, used, 2e-3, told, step) for step in range(40)]
    mode = list(ATTRIBUTE_VALUES).index("mode")
    assert found[0][mode] > 0.65 > found[-1][mode]


def test_captions_of_a_step_are_not_held_out() -> None:
    given = draw_captions(0, 3)
    assert given == draw_captions(0, 3) != draw_captions(0, 4)
    assert len(given) == CAPTIONS_PER_STEP
    assert not any(is_held_out(brief) for brief, _ in given)
    for name in ATTRIBUTE_VALUES:
        assert attribute_targets(name, given, "cpu").shape == (CAPTIONS_PER_STEP,)


def test_crops_grow_longer() -> None:
    said = build_tokenizer()
    for step, longer, (count, length) in ((1, False, SHORT_SHAPE), (3, True, LONG_SHAPE)):
        columns = draw_music_batch(said, 0, step, longer=longer).columns
        assert columns.shape == (count, len(BOOKS), length)


def test_batches_depend_on_seed_and_step_only() -> None:
    said = build_tokenizer()
    one, same, next_one = (draw_music_batch(said, 0, step, longer=False) for step in (5, 5, 6))
    assert torch.equal(one.columns, same.columns)
    assert torch.equal(one.text, same.text)
    assert not torch.equal(one.columns, next_one.columns)
    assert not torch.equal(draw_music_batch(said, 1, 5, longer=False).columns, one.columns)


def test_interrupted_music_training_gives_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after each step, through both stages, the weights are those of one run."""
    monkeypatch.setattr(train, "CAPTION_STEPS", 2)
    monkeypatch.setattr(dataset, "CAPTIONS_PER_STEP", 4)
    for name in ("OPENING_SHAPE", "SHORT_SHAPE", "LONG_SHAPE"):
        monkeypatch.setattr(dataset, name, (2, 12))

    def run(folder: Path, until: float) -> bool:
        torch.manual_seed(0)
        options = argparse.Namespace(seed=0, device="cpu")
        return train_music(TrainingConfig(folder, 2, 2e-3, 0.3, until), options)

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
