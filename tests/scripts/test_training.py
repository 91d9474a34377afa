"""Training stops and goes on as if it had not stopped."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.embedded_model import codec, language, lessons, training, words
from scripts.embedded_model.captions import held_back
from scripts.embedded_model.tokenizer import tokenizer
from scripts.embedded_model.training import Course
from scripts.embedded_model.vocabulary import BOOKS


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


def test_it_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, losses = toy()
    training.train(whole, Course(tmp_path / "a", 30, 0.01, 0.5, math.inf), losses, ("x", "y"))
    over = []
    for _ in range(31):  # each run stops after its first step
        parts, losses = toy()
        course = Course(tmp_path / "b", 30, 0.01, 0.5, -1.0)
        over.append(training.train(parts, course, losses, ("x", "y")))
    assert over == [False] * 29 + [True] * 2
    for name, parameter in whole.items():
        assert torch.equal(parameter, parts[name])
    assert torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)["step"] == 30


def test_it_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned, losses = toy()
    before = losses(99).mean()
    training.train(learned, Course(tmp_path, 60, 0.3, 0.5, math.inf), losses, ("x", "y"))
    assert losses(99).mean() < before / 2
    assert '"step": 60' in capsys.readouterr().out


def test_a_line_is_the_mean_of_the_steps_since_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned, losses = toy()
    due = losses(0)

    def same(_: int) -> torch.Tensor:
        return losses(0) * 0 + due.detach()

    for _ in range(training.PRINT_EVERY):
        training.train(learned, Course(tmp_path, 20, 0.01, 0.5, -1.0), same, ("x", "y"), watch)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["x"], shown["y"]) == tuple(round(loss, 4) for loss in due.tolist())
    assert shown["seen"] == 0.25


def watch() -> dict[str, float]:
    return {"seen": 0.25}


def test_what_is_quick_learns_at_ten_times_the_rate() -> None:
    learned, losses = toy()
    before = learned["line.bias"].detach().clone()
    used = training.optimizers(learned, "line.bias")
    training.advanced(learned, used, 1e-3, losses, 0)
    assert torch.allclose((learned["line.bias"] - before).abs()[:2], torch.tensor(1e-2), rtol=1e-3)


def test_the_rate_rises_stays_and_falls() -> None:
    course = Course(Path(), 1_000, 2.0, 0.25, math.inf)
    assert [course.rate_at(step) for step in (0, 49, 99, 750)] == [0.02, 1.0, 2.0, 2.0]
    assert course.rate_at(875) == pytest.approx(1.0)
    assert course.rate_at(999) == pytest.approx(0.04)


def test_each_book_has_a_loss_and_captions_matter() -> None:
    torch.manual_seed(0)
    said = tokenizer()
    model = language.untrained(len(said), codec.configuration())
    given = lessons.lesson(said, 0, 0, longer=False)
    count, length = lessons.OPENINGS
    assert given.columns.shape == (count, len(BOOKS), length)
    with torch.no_grad():
        found = lessons.loss(model, given, "cpu")
        other = language.losses(model, given.text, torch.zeros_like(given.mask), given.columns)
    assert found.shape == (len(BOOKS),)
    assert torch.isfinite(other).all()
    assert not torch.allclose(found, other)


def test_captions_tell_attributes() -> None:
    """Forty steps of words alone are enough to tell major from minor better than chance."""
    torch.manual_seed(0)
    said = tokenizer()
    model = language.untrained(len(said), codec.configuration())
    head = torch.nn.Linear(language.WIDTH, words.CLASSES)
    learned = dict(model.text_encoder.named_parameters()) | dict(head.named_parameters())
    used = training.optimizers(learned)

    def told(step: int) -> torch.Tensor:
        return words.losses(model, head, said, words.briefs(0, step), "cpu")

    found = [training.advanced(learned, used, 2e-3, told, step) for step in range(40)]
    mode = list(words.VALUES).index("mode")
    assert found[0][mode] > 0.65 > found[-1][mode]


def test_the_words_of_a_step_are_not_held_back() -> None:
    given = words.briefs(0, 3)
    assert given == words.briefs(0, 3) != words.briefs(0, 4)
    assert len(given) == words.CAPTIONS
    assert not any(held_back(brief) for brief, _ in given)
    for name in words.VALUES:
        assert words.due(name, given, "cpu").shape == (words.CAPTIONS,)


def test_lessons_grow_longer() -> None:
    said = tokenizer()
    for step, longer, (count, length) in ((1, False, lessons.SHORT), (3, True, lessons.LONG)):
        columns = lessons.lesson(said, 0, step, longer=longer).columns
        assert columns.shape == (count, len(BOOKS), length)


def test_lessons_are_drawn_from_their_step() -> None:
    said = tokenizer()
    one, same, next_one = (lessons.lesson(said, 0, step, longer=False) for step in (5, 5, 6))
    assert torch.equal(one.columns, same.columns)
    assert torch.equal(one.text, same.text)
    assert not torch.equal(one.columns, next_one.columns)
    assert not torch.equal(lessons.lesson(said, 1, 5, longer=False).columns, one.columns)
