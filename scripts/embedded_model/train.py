"""Train the language model, or the small Pop2Piano; goes on from the folder's last checkpoint.

Usage: scripts/embed train {music,piano} FOLDER [--steps N] …

Every step is drawn from the seed and its number: the same seed and number of steps give the same
weights on the same hardware, however often --seconds stopped it in between. What comes first, words
or hearing, is learned to its end before the rest begins. Other --steps are another course: its rate
falls elsewhere.
"""

import argparse
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from scripts.embedded_model import codec, cover, hearing, language, lessons, practice, words
from scripts.embedded_model.songs import Songs
from scripts.embedded_model.tokenizer import tokenizer
from scripts.embedded_model.training import HEARING, WORDS, Course, train
from scripts.embedded_model.vocabulary import BOOKS

STEPS = {"music": 3_500, "piano": 4_500}
DECAY = {"music": 0.3, "piano": 0.35}
WORD_STEPS = 1_000
HEARING_STEPS = 1_200
SHORT = 0.7  # of the music's steps are over before its longest crops begin


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=STEPS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--songs", type=int, default=6_000, help="that the piano learns from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the music's training: cpu or cuda")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    steps = options.steps or STEPS[options.model]
    until = time.monotonic() + options.seconds
    course = Course(options.folder, steps, options.rate, DECAY[options.model], until)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if not {"music": music, "piano": piano}[options.model](course, options):
        sys.exit("stopped by --seconds: the same command goes on from here")


def music(course: Course, options: argparse.Namespace) -> bool:
    said = tokenizer()
    model = language.untrained(len(said), codec.configuration()).to(options.device)
    if not read(model, said, course, options):
        return False
    model.audio_encoder.requires_grad_(False)
    # What is learned of words stays: the decoder's gradients would be mostly noise to it.
    model.text_encoder.requires_grad_(False)
    model.enc_to_dec_proj.requires_grad_(False)
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def losses(step: int) -> torch.Tensor:
        longer = step >= SHORT * course.steps
        given = lessons.lesson(said, options.seed, step, longer=longer)
        return lessons.loss(model, given, options.device)

    return train(learned, course, losses, BOOKS)


def read(model: Any, said: Any, course: Course, options: argparse.Namespace) -> bool:
    """Teach the text encoder; see `words`."""
    head = torch.nn.Linear(language.WIDTH, words.CLASSES).to(options.device)
    learned = {f"text_encoder.{n}": p for n, p in model.text_encoder.named_parameters()}
    learned |= {f"enc_to_dec_proj.{n}": p for n, p in model.enc_to_dec_proj.named_parameters()}
    learned |= {words.HEAD + n: p for n, p in head.named_parameters()}

    def losses(step: int) -> torch.Tensor:
        return words.losses(model, head, said, words.briefs(options.seed, step), options.device)

    first = replace(course, folder=course.folder / WORDS, steps=WORD_STEPS)
    return train(learned, first, losses, tuple(words.VALUES))


def piano(course: Course, options: argparse.Namespace) -> bool:
    model = cover.untrained()
    model.set_attn_implementation("eager")  # the only one that shows where it looks
    head = hearing.head(cover.WIDTH)
    songs = Songs(course.folder / "songs", options.seed, options.songs)
    held = [practice.batch(chosen) for chosen in songs.held()]
    learned = dict(model.named_parameters())
    learned |= {hearing.HEAD + n: p for n, p in head.named_parameters()}
    course = replace(course, quick=cover.PLACES)
    first = replace(course, folder=course.folder / HEARING, steps=HEARING_STEPS)

    def heard(step: int) -> torch.Tensor:
        given = practice.batch(songs.drawn(step))  # rendered in full precision
        with torch.autocast("cpu", torch.bfloat16):
            return practice.hearing_losses(model, head, given)

    def losses(step: int) -> torch.Tensor:
        given = practice.batch(songs.drawn(first.steps + step))
        with torch.autocast("cpu", torch.bfloat16):
            return practice.losses(model, head, given)

    listening = {name: learned[name] for name in learned if name.startswith(hearing.LEARNED)}
    return train(
        listening, first, heard, practice.HEARING, lambda: practice.hears(model, head, held)
    ) and train(
        learned, course, losses, practice.LOSSES,
        lambda: practice.hears(model, head, held) | practice.covers(model, held),
    )  # fmt: skip


if __name__ == "__main__":
    main()
