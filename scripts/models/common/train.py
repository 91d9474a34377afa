"""Train the music or the piano model. Continues from the last checkpoint in the folder.

Usage: scripts/embed train {music,piano} FOLDER [--steps N] …

Every step is drawn from the seed and its number. The same seed and number of steps therefore give
the same weights on the same hardware, however often --seconds interrupted the run. The first stage
(captions or encoder) is completed before the second begins. Another --steps gives other weights,
because the learning rate depends on it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from scripts import arguments, one_line
from scripts.models.music.codec import codec_config
from scripts.models.music.dataset import (
    ATTRIBUTE_CLASSES,
    ATTRIBUTE_HEAD,
    ATTRIBUTE_VALUES,
    BatchConfig,
    attribute_losses,
    draw_captions,
    draw_music_batch,
    music_losses,
)
from scripts.models.music.model import MusicConfig, build_music_model, build_tokenizer
from scripts.models.music.tokens import BOOKS
from scripts.models.piano.dataset import (
    ENCODER_LOSSES,
    PIANO_LOSSES,
    SHIPPED_SONGS,
    SongConfig,
    SongDataset,
    encoder_losses,
    make_batch,
    piano_losses,
)
from scripts.models.piano.evaluate import cover_metrics, onset_metrics
from scripts.models.piano.model import (
    ENCODER_PREFIXES,
    ONSET_HEAD,
    POSITION_BIAS,
    PianoConfig,
    build_onset_head,
    build_piano_model,
)

CHECKPOINT: Final = "checkpoint.pt"
# The folder of the music model's first stage.
CAPTION_STAGE: Final = "words"
# The folder of the piano model's first stage.
ENCODER_STAGE: Final = "hearing"
# Time between checkpoints, which is lost at most if the process is killed.
SAVE_SECONDS: Final = 120.0
# Steps between lines of output.
PRINT_STEPS: Final = 20
# Steps between evaluations on held-out data.
WATCH_STEPS: Final = 200
# Steps until the learning rate is at its highest.
WARMUP_STEPS: Final = 100
# The share of the learning rate that is left in the last step.
FINAL_RATE: Final = 0.02
# More than any machine has cores.
MAX_THREADS: Final = 1024
# Parts of the names of matrices that AdamW trains: embeddings, output layers and heads.
ADAMW_NAMES: Final = ("embed", "shared", "lm_head", "bias", "hearing")
# The learning rate of the fast part, as a multiple.
FAST_FACTOR: Final = 10.0


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The length and the learning rate of a training stage.

    `decay`: the share of the steps with a falling rate. `deadline`: a time of `time.monotonic` at
    which this run stops and leaves a checkpoint. `fast_part`: parameters with this in their name
    learn faster.
    """

    folder: Path
    steps: int
    rate: float
    decay: float
    deadline: (
        float  # by `time.monotonic`, when this run stops: a checkpoint is left for the next one
    )
    fast_part: str = ""  # a part of names: these learn faster, if any

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step: linear warm-up, constant, linear decay."""
        remaining = (self.steps - step) / (self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / WARMUP_STEPS, max(FINAL_RATE, remaining))


def build_optimizers(
    parameters: Mapping[str, Any], fast_part: str = ""
) -> list[torch.optim.Optimizer]:
    """Return Muon for inner matrices, and AdamW for embeddings, output layers and vectors."""

    def is_matrix(name: str) -> bool:
        return parameters[name].dim() == 2 and not any(part in name for part in ADAMW_NAMES)

    def is_fast(name: str) -> bool:
        return bool(fast_part) and fast_part in name

    adamw = [name for name in parameters if not is_matrix(name)]
    slow_group = {"params": [parameters[name] for name in adamw if not is_fast(name)]}
    fast_group = {
        "params": [parameters[name] for name in adamw if is_fast(name)],
        "times": FAST_FACTOR,
    }
    return [
        torch.optim.Muon(
            [parameters[name] for name in parameters if is_matrix(name)],
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [slow_group, fast_group] if fast_group["params"] else [slow_group],
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]


def run_training(
    parameters: Mapping[str, Any],
    config: TrainingConfig,
    losses: Callable[[int], torch.Tensor],
    names: Sequence[str],
    watch: Callable[[], Mapping[str, float]] = dict,
) -> bool:
    """Train parameters, given by name. Returns False if the deadline stopped the run.

    `losses` returns the losses of a step, one for each of `names`. `watch` returns more figures to
    print.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    optimizers, checkpoint = (
        build_optimizers(parameters, config.fast_part),
        config.folder / CHECKPOINT,
    )
    first = _load_checkpoint(checkpoint, parameters, optimizers) if checkpoint.exists() else 0
    started = saved = time.monotonic()
    recent: list[torch.Tensor] = []  # losses since the last line of output
    for step in range(first, config.steps):
        recent.append(
            training_step(parameters, optimizers, config.learning_rate(step), losses, step)
        )
        now = time.monotonic()
        is_last, is_timeout = step + 1 == config.steps, now > config.deadline
        if (step + 1) % PRINT_STEPS == 0:
            means = zip(names, torch.stack(recent).mean(0).tolist(), strict=True)
            line = {"step": step + 1, "seconds": round(now - started), **dict(means)}
            if (step + 1) % WATCH_STEPS == 0 or is_last:
                line |= watch()
            print(json.dumps(_rounded(line)), flush=True)
            recent.clear()
        if now - saved > SAVE_SECONDS or is_last or is_timeout:
            _save_checkpoint(checkpoint, parameters, optimizers, step + 1)
            saved = now
        if is_timeout and not is_last:
            return False
    return True


def _rounded(line: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in line.items()}


def training_step(
    parameters: Mapping[str, Any],
    optimizers: Sequence[torch.optim.Optimizer],
    rate: float,
    compute_losses: Callable[[int], torch.Tensor],
    step: int,
) -> torch.Tensor:
    """Make one optimizer step and return the losses before it."""
    step_losses = compute_losses(step)
    step_losses.mean().backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step_losses.detach().cpu().float()


def _save_checkpoint(
    path: Path,
    parameters: Mapping[str, Any],
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
) -> None:
    """Write a checkpoint atomically."""
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    state = {
        "step": step,
        "model": weights,
        "used": [optimizer.state_dict() for optimizer in optimizers],
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def _load_checkpoint(
    path: Path, parameters: Mapping[str, Any], optimizers: Sequence[torch.optim.Optimizer]
) -> int:
    """Restore a checkpoint. Returns the number of completed steps."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state["model"][name])
    for optimizer, saved in zip(optimizers, state["used"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


DEFAULT_STEPS = {"music": 3_500, "piano": 4_500}
DECAY_SHARE = {"music": 0.3, "piano": 0.35}
# The share of the music model's steps before its longest crops begin.
SHORT_CROP_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class MusicTraining:
    """What the training of the music model needs to know. The defaults trained the shipped one."""

    seed: int = 0
    device: str = "cpu"
    # Steps of the first stage.
    caption_steps: int = 1_000
    model: MusicConfig = field(default_factory=MusicConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)


@dataclass(frozen=True, slots=True)
class PianoTraining:
    """What the training of the piano model needs to know. The defaults trained the shipped one."""

    seed: int = 0
    # Steps of the first stage.
    encoder_steps: int = 1_200
    model: PianoConfig = field(default_factory=PianoConfig)
    songs: SongConfig = field(default_factory=SongConfig)


def _parse_arguments() -> argparse.Namespace:
    parser = arguments.Parser("scripts/embed train", __doc__.split("\n")[0])
    count = arguments.whole(1)
    parser.add_argument("model", choices=DEFAULT_STEPS)
    parser.add_argument(
        "folder", type=arguments.new_folder, help="for checkpoints and rendered songs"
    )
    parser.add_argument(
        "--steps", type=count, help=f"of the second stage (default {DEFAULT_STEPS})"
    )
    parser.add_argument(
        "--rate", type=arguments.number(0), default=2e-3, help="highest learning rate"
    )
    parser.add_argument(
        "--seed",
        type=arguments.whole(*arguments.SEEDS),
        default=0,
        help="decides all draws (default 0)",
    )
    parser.add_argument(
        "--songs",
        type=count,
        default=SHIPPED_SONGS.songs,
        help="training songs of the piano (default 6000)",
    )
    parser.add_argument(
        "--threads", type=arguments.whole(1, MAX_THREADS), default=1, help="of torch (default 1)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="for the music model"
    )
    parser.add_argument(
        "--seconds",
        type=arguments.number(0),
        default=math.inf,
        help="stop after this time, with a checkpoint",
    )
    return parser.parse_args()


def main() -> None:
    options = _parse_arguments()
    steps = options.steps or DEFAULT_STEPS[options.model]
    deadline = time.monotonic() + options.seconds
    config = TrainingConfig(
        options.folder, steps, options.rate, DECAY_SHARE[options.model], deadline
    )
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if options.model == "music":
        is_complete = train_music(config, MusicTraining(options.seed, options.device))
    else:
        songs = SongConfig(options.songs)
        is_complete = train_piano(config, PianoTraining(options.seed, songs=songs))
    if not is_complete:
        sys.exit("stopped by --seconds; run the same command again to continue")


def train_music(config: TrainingConfig, training: MusicTraining) -> bool:
    """Train the music model. Returns False if the deadline stopped it."""
    tokenize = build_tokenizer()
    model = build_music_model(len(tokenize), codec_config(), training.model).to(training.device)
    if not _train_text_encoder(model, tokenize, config, training):
        return False
    model.audio_encoder.requires_grad_(False)
    # Frozen: the decoder's gradients would be mostly noise to the text encoder.
    model.text_encoder.requires_grad_(False)
    model.enc_to_dec_proj.requires_grad_(False)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def losses(step: int) -> torch.Tensor:
        long_crops = step >= SHORT_CROP_SHARE * config.steps
        batch = draw_music_batch(tokenize, training.seed, step, training.batches, longer=long_crops)
        return music_losses(model, batch, training.device)

    return run_training(parameters, config, losses, BOOKS)


def _train_text_encoder(
    model: Any, tokenize: Any, config: TrainingConfig, training: MusicTraining
) -> bool:
    """Train the text encoder on captions alone; see `music.dataset`."""
    head = torch.nn.Linear(training.model.width, ATTRIBUTE_CLASSES).to(training.device)
    parameters = {f"text_encoder.{n}": p for n, p in model.text_encoder.named_parameters()}
    parameters |= {f"enc_to_dec_proj.{n}": p for n, p in model.enc_to_dec_proj.named_parameters()}
    parameters |= {ATTRIBUTE_HEAD + n: p for n, p in head.named_parameters()}

    def losses(step: int) -> torch.Tensor:
        captions = draw_captions(training.seed, step, training.batches.captions)
        return attribute_losses(model, head, tokenize, captions, training.device)

    caption_config = replace(
        config, folder=config.folder / CAPTION_STAGE, steps=training.caption_steps
    )
    return run_training(parameters, caption_config, losses, tuple(ATTRIBUTE_VALUES))


def train_piano(config: TrainingConfig, training: PianoTraining) -> bool:
    """Train the piano model. Returns False if the deadline stopped it."""
    model = build_piano_model(training.model)
    model.set_attn_implementation("eager")  # the only one that returns attentions
    head = build_onset_head(training.model.width)
    songs = SongDataset(
        config.folder / "songs", training.seed, training.songs, training.model.width
    )
    held_out = [make_batch(choices) for choices in songs.held_out_rows()]
    parameters = dict(model.named_parameters())
    parameters |= {ONSET_HEAD + n: p for n, p in head.named_parameters()}
    config = replace(config, fast_part=POSITION_BIAS)
    encoder_config = replace(
        config, folder=config.folder / ENCODER_STAGE, steps=training.encoder_steps
    )

    def onset_step(step: int) -> torch.Tensor:
        batch = make_batch(songs.rows_of_step(step))  # rendered in full precision
        with torch.autocast("cpu", torch.bfloat16):
            return encoder_losses(model, head, batch)

    def losses(step: int) -> torch.Tensor:
        batch = make_batch(songs.rows_of_step(encoder_config.steps + step))
        with torch.autocast("cpu", torch.bfloat16):
            return piano_losses(model, head, batch)

    encoder_parameters = {
        name: parameters[name] for name in parameters if name.startswith(ENCODER_PREFIXES)
    }
    return run_training(
        encoder_parameters, encoder_config, onset_step, ENCODER_LOSSES,
        lambda: onset_metrics(model, head, held_out),
    ) and run_training(
        parameters, config, losses, PIANO_LOSSES,
        lambda: onset_metrics(model, head, held_out) | cover_metrics(model, held_out),
    )  # fmt: skip


if __name__ == "__main__":
    one_line.run(main)
