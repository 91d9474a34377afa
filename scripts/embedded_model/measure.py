"""Measure an embedded model on what it has not seen, through a node's own worker.

Usage: scripts/embed measure {music,piano} [--count N] …
       scripts/embed measure music --calibrate
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import soundfile
import torch
from transformers import EncodecModel

from executor.models.folders import SHIPPED
from scripts.embedded_model import calibrating, codec, covering, measuring, rendering, worker
from scripts.embedded_model.analysis import Samples
from scripts.embedded_model.percussion import SAMPLING_RATE
from scripts.embedded_model.shipping import MODELS

COUNT = {"music": 100, "piano": 60}  # those of the cards


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--models", type=Path, default=SHIPPED, help="the folder of models")
    parser.add_argument("--count", type=int, help="of captions (100), or songs (60)")
    parser.add_argument("--config", type=json.loads, default={}, help="generation_config to try")
    parser.add_argument("--only", action="store_true", help="what the model makes, nothing else")
    parser.add_argument("--calibrate", action="store_true", help="what the thresholds should be")
    parser.add_argument("--sound", type=Path, help="keep the audio in this folder")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.count = options.count or COUNT[options.model]
    torch.set_num_threads(1)
    if options.calibrate:
        print(calibrating.report())
        return
    made = EncodecModel(codec.configuration()).eval()
    codec.write(made)
    with worker.started(options.models, MODELS[options.model]) as node:
        {"music": music, "piano": piano}[options.model](options, made, node)


def music(options: argparse.Namespace, made: EncodecModel, node: worker.Worker) -> None:
    asked = measuring.questions(options.count)
    columns = [] if options.only else known(made, asked)
    config, seconds = {"max_new_tokens": measuring.FRAMES + 3, **options.config}, []

    def answer(question: measuring.Asked) -> Samples:
        began = time.monotonic()
        audio = node.music(question.text, question.number, config)
        seconds.append(time.monotonic() - began)
        if options.sound:
            options.sound.mkdir(parents=True, exist_ok=True)
            soundfile.write(options.sound / f"{question.number}.wav", audio, SAMPLING_RATE)
        return audio

    columns.append(("model", measuring.judged(asked, answer)))
    print(measuring.table(columns))
    print(f"\n{np.median(seconds):.1f} s (median) for {measuring.SECONDS} s of audio")
    print("\n".join(columns[-1][1].wrong), file=sys.stderr)


def known(made: EncodecModel, asked: list[measuring.Asked]) -> list[tuple[str, measuring.Tally]]:
    """How the generator's own audio and the codec's are judged; how far they are apart."""
    own, other = measuring.codec_distances(made, asked)
    print(f"codec from generator {own:.1f} dB; from another piece {other:.1f} dB\n", flush=True)
    return [
        ("generator's audio", measuring.judged(asked, lambda q: rendering.play(q.codes))),
        ("codec's audio", measuring.judged(asked, lambda q: measuring.decoded(made, q.codes))),
    ]


def piano(options: argparse.Namespace, made: EncodecModel, node: worker.Worker) -> None:
    print(covering.table(covering.judged(made, node, options.count)))


if __name__ == "__main__":
    main()
