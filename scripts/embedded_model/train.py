#!/usr/bin/env python3
"""Train the language model; goes on from the folder's last checkpoint.

Usage: python scripts/embedded_model/train.py FOLDER [--steps N] [--threads N] [--device cuda] …

Every step's pieces are drawn from the seed and the step's number, so the same seed gives the same
weights on the same hardware, however often it was stopped in between.
"""

import argparse
import itertools
import json
import math
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from embedded_model import language, notation
from embedded_model.captions import caption, held_back
from embedded_model.codec import configuration
from embedded_model.tokenizer import tokenizer
from embedded_model.vocabulary import BOOKS

UNTOLD = 0.12  # of the pieces come without a caption: what guidance leads away from
LATER = 0.25  # of the batches are crops from later in a piece
LATEST = 1_000  # frames into a piece


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--decay", type=float, default=0.25, help="share of steps of falling rate")
    parser.add_argument("--short", type=float, default=0.6, help="share of steps on short crops")
    parser.add_argument("--columns", type=int, nargs=2, default=(260, 516), help="short, long")
    parser.add_argument("--pieces", type=int, nargs=2, default=(16, 8), help="of a step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    return parser.parse_args()


def batch(
    options: argparse.Namespace, words: Any, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Captions, their mask, delayed tokens and the first column's position of a step."""
    chance = random.Random(f"step/{options.seed}/{step}")
    longer = int(step >= options.short * options.steps)
    length, count = options.columns[longer], options.pieces[longer]
    start = chance.randrange(1, LATEST) if chance.random() < LATER else 0
    texts, rows, told = [], [], []
    for number in range(count):
        for again in itertools.count():
            seed = f"train/{options.seed}/{step}/{number}/{again}"
            brief, _, codes = notation.piece(seed, start + length)
            if not held_back(brief):
                break
        rows.append(notation.delayed(codes)[:, start : start + length])
        texts.append(caption(brief, random.Random(f"{seed}/caption"))[0])
        told.append(chance.random() >= UNTOLD)
    said = words(texts, return_tensors="pt", padding=True)
    mask = said["attention_mask"] * torch.tensor(told)[:, None]
    return said["input_ids"], mask, torch.from_numpy(np.stack(rows)), start


def optimizers(model: Any, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between embeddings and heads, AdamW for all else."""
    parts = (model.text_encoder, model.decoder, model.enc_to_dec_proj)
    named = [pair for part in parts for pair in part.named_parameters()]
    matrices, others = [], []
    for name, parameter in named:
        plain = parameter.dim() != 2 or any(k in name for k in ("embed", "shared", "lm_heads", "relative"))
        (others if plain else matrices).append(parameter)
    others = list({id(parameter): parameter for parameter in others}.values())
    return [
        torch.optim.Muon(
            matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_at(options: argparse.Namespace, step: int) -> float:
    """Rises for 100 steps, stays, and falls to nothing at the end."""
    left = (options.steps - step) / (options.decay * options.steps)
    return min(1.0, (step + 1) / 100, max(0.02, left))


def trained(model: Any) -> dict[str, torch.Tensor]:
    """The language half's weights."""
    return {
        name: tensor for name, tensor in model.state_dict().items()
        if not name.startswith("audio_encoder.")
    }  # fmt: skip


def keep(path: Path, model: Any, used: list[Any], step: int) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {"step": step, "model": trained(model), "used": [one.state_dict() for one in used]}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def main() -> None:
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    words = tokenizer()
    model = language.untrained(len(words), configuration()).to(options.device)
    used = optimizers(model, options.rate)
    first, last = 0, options.folder / "checkpoint.pt"
    if last.exists():
        state = torch.load(last, map_location=options.device, weights_only=True)
        model.load_state_dict(state["model"], strict=False)
        for one, kept in zip(used, state["used"], strict=True):
            one.load_state_dict(kept)
        first = state["step"]
    began = saved = time.monotonic()
    sums, count = torch.zeros(len(BOOKS)), 0
    for step in range(first, options.steps):
        for one in used:
            for group in one.param_groups:
                group["lr"] = options.rate * rate_at(options, step)
        if step == round((1 - options.decay) * options.steps):
            keep(options.folder / "stable.pt", model, used, step)
        text, mask, columns, start = batch(options, words, step)
        place = {"device": options.device}
        with (
            language.positions_from(model, start),
            torch.autocast(options.device, torch.bfloat16),
        ):
            found = language.losses(model, text.to(**place), mask.to(**place), columns.to(**place))
        found.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one in used:
            one.step()
        model.zero_grad(set_to_none=True)
        sums, count = sums + found.detach().cpu().float(), count + 1
        now = time.monotonic()
        done = step + 1 == options.steps or now - began > options.seconds
        if count == 20 or done:
            line = {"step": step + 1, "seconds": round(now - began, 1), "rate": rate_at(options, step)}
            line |= {book: round(float(x), 4) for book, x in zip(BOOKS, sums / count, strict=True)}
            print(json.dumps(line), flush=True)
            sums, count = torch.zeros(len(BOOKS)), 0
        if now - saved > 180 or done:
            keep(last, model, used, step + 1)
            saved = now
        if done:
            break


if __name__ == "__main__":
    main()
