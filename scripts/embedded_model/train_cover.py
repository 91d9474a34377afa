#!/usr/bin/env python3
"""Train the small Pop2Piano; goes on from the folder's last checkpoint.

Usage: python scripts/embedded_model/train_cover.py FOLDER [--steps N] [--songs N] [--threads N] …

Songs are rendered as they are needed and kept in FOLDER/songs. The same seed gives the same weights
on the same hardware, however often it was stopped in between.
"""

import argparse
import json
import math
import os
import pickle  # our own rows, written and read here
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from embedded_model import codec, cover
from transformers import EncodecModel

GROUP = 25  # songs of a file


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--songs", type=int, default=1_500)
    parser.add_argument("--rows", type=int, default=32, help="of a step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.4, help="share of steps of falling rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    return parser.parse_args()


class Songs:
    """Rows by groups of songs; a group is rendered when it is first asked for."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._kept: dict[int, list[cover.Row]] = {}
        self._codec = EncodecModel(codec.configuration()).eval()
        codec.write(self._codec)
        self._listener = cover.extractor()
        folder.mkdir(parents=True, exist_ok=True)

    def group(self, number: int) -> list[cover.Row]:
        if number not in self._kept:
            path = self._folder / f"{self._seed}-{number}.pickle"
            if not path.exists():
                rows = [
                    row for song in range(number * GROUP, (number + 1) * GROUP)
                    for row in cover.rows(self._codec, self._listener, f"cover/{self._seed}/{song}")
                ]  # fmt: skip
                path.with_suffix(".new").write_bytes(pickle.dumps(rows))
                path.with_suffix(".new").replace(path)
            self._kept[number] = pickle.loads(path.read_bytes())
        return self._kept[number]


def drawn(songs: Songs, options: argparse.Namespace, step: int) -> list[cover.Row]:
    """A step's rows: from as many groups as could have been rendered by then."""
    chance = random.Random(f"cover step/{options.seed}/{step}")
    groups = min(options.songs // GROUP, 4 + step // 10)
    return [
        chance.choice(songs.group(chance.randrange(groups))) for _ in range(options.rows)
    ]


def optimizers(model: Any, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for all else."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        plain = parameter.dim() != 2 or any(k in name for k in ("embed", "shared", "bias", "head"))
        (others if plain else matrices).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_at(options: argparse.Namespace, step: int) -> float:
    left = (options.steps - step) / (options.decay * options.steps)
    return min(1.0, (step + 1) / 100, max(0.02, left))


def keep(path: Path, model: Any, used: list[Any], step: int) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {
        "step": step, "model": model.state_dict(), "used": [one.state_dict() for one in used],
    }  # fmt: skip
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def main() -> None:
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = cover.untrained()
    songs, used = Songs(options.folder / "songs", options.seed), optimizers(model, options.rate)
    first, last = 0, options.folder / "checkpoint.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        for one, kept in zip(used, state["used"], strict=True):
            one.load_state_dict(kept)
        first = state["step"]
    began = saved = time.monotonic()
    total, count = 0.0, 0
    for step in range(first, options.steps):
        for one in used:
            for group in one.param_groups:
                group["lr"] = options.rate * rate_at(options, step)
        chosen = cover.batch(drawn(songs, options, step))
        with torch.autocast("cpu", torch.bfloat16):
            found = cover.loss(model, *chosen)
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one in used:
            one.step()
        model.zero_grad(set_to_none=True)
        total, count, now = total + found.item(), count + 1, time.monotonic()
        done = step + 1 == options.steps or now - began > options.seconds
        if count == 50 or done:
            line = {"step": step + 1, "seconds": round(now - began), "loss": round(total / count, 4)}
            print(json.dumps(line), flush=True)
            total, count = 0.0, 0
        if now - saved > 180 or done:
            keep(last, model, used, step + 1)
            saved = now
        if done:
            break


if __name__ == "__main__":
    main()
