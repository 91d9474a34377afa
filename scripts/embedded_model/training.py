"""The loop that trains either model: two optimizers, one schedule, checkpoints to go on from."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

CHECKPOINT: Final = "checkpoint.pt"
WORDS: Final = "words"  # the folder of what is learned first, of music
HEARING: Final = "hearing"  # and of covers
SAVE_EVERY: Final = 120.0  # seconds
PRINT_EVERY: Final = 20  # steps
WATCH_EVERY: Final = 200  # steps
RISE: Final = 100  # steps until the rate is at its highest
LEAST: Final = 0.02  # of the rate is left at the end
# In a matrix's name: it is looked up rather than multiplied by, or stands next to the words.
LOOKED_UP: Final = ("embed", "shared", "lm_head", "bias", "hearing")
QUICKER: Final = 10.0  # times the rate of what is called quick


@dataclass(frozen=True, slots=True)
class Course:
    """How long to train: `decay` is the share of steps with a falling rate."""

    folder: Path
    steps: int
    rate: float
    decay: float
    until: float  # by `time.monotonic`, when this run stops: a checkpoint is left for the next one
    quick: str = ""  # a part of names: these learn faster, if any

    def rate_at(self, step: int) -> float:
        """Rises, stays, and falls to nearly nothing at the end."""
        left = (self.steps - step) / (self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / RISE, max(LEAST, left))


def optimizers(learned: Mapping[str, Any], quick: str = "") -> list[torch.optim.Optimizer]:
    """Muon for matrices between what is looked up and what is said, AdamW for all else."""

    def matrix(name: str) -> bool:
        return learned[name].dim() == 2 and not any(part in name for part in LOOKED_UP)

    def hurried(name: str) -> bool:
        return bool(quick) and quick in name

    others = [name for name in learned if not matrix(name)]
    slow = {"params": [learned[name] for name in others if not hurried(name)]}
    fast = {"params": [learned[name] for name in others if hurried(name)], "times": QUICKER}
    return [
        torch.optim.Muon(
            [learned[name] for name in learned if matrix(name)],
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [slow, fast] if fast["params"] else [slow], betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]


def train(
    learned: Mapping[str, Any],
    course: Course,
    losses: Callable[[int], torch.Tensor],
    names: Sequence[str],
    watch: Callable[[], Mapping[str, float]] = dict,
) -> bool:
    """Train parameters by name, and tell whether the course is over or this run's time was.

    `losses` gives a step's, one for each of `names`; `watch` what else is printed now and then.
    """
    course.folder.mkdir(parents=True, exist_ok=True)
    used, last = optimizers(learned, course.quick), course.folder / CHECKPOINT
    first = resumed(last, learned, used) if last.exists() else 0
    began = saved = time.monotonic()
    found: list[torch.Tensor] = []  # since the last line
    for step in range(first, course.steps):
        found.append(advanced(learned, used, course.rate_at(step), losses, step))
        now = time.monotonic()
        over, stopped = step + 1 == course.steps, now > course.until
        if (step + 1) % PRINT_EVERY == 0:
            means = zip(names, torch.stack(found).mean(0).tolist(), strict=True)
            shown = {"step": step + 1, "seconds": round(now - began), **dict(means)}
            if (step + 1) % WATCH_EVERY == 0 or over:
                shown |= watch()
            print(json.dumps(rounded(shown)), flush=True)
            found.clear()
        if now - saved > SAVE_EVERY or over or stopped:
            keep(last, learned, used, step + 1)
            saved = now
        if stopped and not over:
            return False
    return True


def rounded(shown: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in shown.items()}


def advanced(
    learned: Mapping[str, Any],
    used: Sequence[torch.optim.Optimizer],
    rate: float,
    losses: Callable[[int], torch.Tensor],
    step: int,
) -> torch.Tensor:
    """Take a step, and return its losses."""
    found = losses(step)
    found.mean().backward()
    torch.nn.utils.clip_grad_norm_(learned.values(), 1.0)
    for one in used:
        for group in one.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        one.step()
        one.zero_grad(set_to_none=True)
    return found.detach().cpu().float()


def keep(
    path: Path, learned: Mapping[str, Any], used: Sequence[torch.optim.Optimizer], step: int
) -> None:
    """Write a checkpoint, whole or not at all."""
    weights = {name: parameter.detach() for name, parameter in learned.items()}
    state = {"step": step, "model": weights, "used": [one.state_dict() for one in used]}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def resumed(path: Path, learned: Mapping[str, Any], used: Sequence[torch.optim.Optimizer]) -> int:
    """Take up a checkpoint; the number of steps it had."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in learned.items():
            parameter.copy_(state["model"][name])
    for one, kept in zip(used, state["used"], strict=True):
        one.load_state_dict(kept)
    return int(state["step"])
