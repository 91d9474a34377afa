"""A Pop2Piano of about half a megabyte, untrained: real steps, made-up music.

The feature extractor keeps its real sizes in time and listens to fewer bands; the vocabulary has
every note and short times, so that chance soon says notes that begin and end.
"""

import json
from pathlib import Path

from transformers import (
    GenerationConfig,
    Pop2PianoConfig,
    Pop2PianoFeatureExtractor,
    Pop2PianoForConditionalGeneration,
    Pop2PianoProcessor,
    Pop2PianoTokenizer,
)

from tests.support.tiny_models.weights import fill

WIDTH = 64
COMPOSERS = 3
LENGTH = 48  # tokens of a segment, where the task does not say
# How many tokens there are of each type; pad is special 0, the end special 1.
VOCABULARY = (("SPECIAL", 3), ("NOTE", 128), ("VELOCITY", 2), ("TIME", 8))


def build(folder: Path) -> None:
    """Write the model into `folder`."""
    names = [f"{number}_TOKEN_{kind}" for kind, count in VOCABULARY for number in range(count)]
    tokens = {name: place for place, name in enumerate(names)}
    model = Pop2PianoForConditionalGeneration(
        Pop2PianoConfig(
            vocab_size=len(tokens),
            composer_vocab_size=COMPOSERS,
            d_model=WIDTH,
            d_kv=16,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        )
    )
    fill(model, seed=1)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        max_length=LENGTH,
        composer_to_feature_token={
            f"composer{number + 1}": len(tokens) + number for number in range(COMPOSERS)
        },
    )
    model.save_pretrained(folder)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps(tokens))
    Pop2PianoProcessor(
        Pop2PianoFeatureExtractor(feature_size=WIDTH), Pop2PianoTokenizer(str(vocabulary))
    ).save_pretrained(folder)
