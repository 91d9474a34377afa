"""MusicGen Melody by text alone, against transformers: the prompt comes before the steps."""

import ctypes
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MusicgenMelodyForConditionalGeneration, StoppingCriteria, set_seed

from executor.engine.library import MAX_POSITIONS
from executor.engine.matrices import Kind
from executor.engine.music import MusicModel, read_chroma
from executor.engine.pool import Pool
from executor.errors import ModelRefused, TaskFailed
from tests.support.tiny_models import musicgen_melody

PROMPT = "a slow sad piano"
STEPS = 150


class Drawn(StoppingCriteria):  # type: ignore[misc]
    """Keeps the tokens as they are drawn, before the delay mask."""

    tokens: Any = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        last = input_ids[:, -1:]
        self.tokens = last if self.tokens is None else torch.cat([self.tokens, last], dim=1)
        return input_ids.new_zeros(len(input_ids), dtype=torch.bool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("melody")
    musicgen_melody.build(built)
    return built


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return MusicgenMelodyForConditionalGeneration.from_pretrained(folder).eval()


def generated(model: MusicModel, reference: Any, seed: int, **members: Any) -> tuple[Any, Any]:
    """Return the tokens and the waveform of transformers."""
    ids = model._tokenizer.encode(PROMPT).ids
    drawn = Drawn()
    set_seed(seed)
    with torch.inference_mode():
        sound = reference.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            stopping_criteria=[drawn],
            **members,
        )
    return drawn.tokens.numpy().T, sound[0].numpy()


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"do_sample": False},
        {"guidance_scale": 1.0},
        {"temperature": 1.3, "top_k": 20, "top_p": 0.9},
        {"top_k": 0},
    ],
    ids=str,
)
def test_tokens_and_waveform_are_those_of_transformers(
    members: Mapping[str, Any], folder: Path, reference: Any
) -> None:
    """None of some 3,000 tokens differs."""
    model = MusicModel(folder, Kind.FLOAT32)
    members = {"max_new_tokens": STEPS, **members}
    request = model.request(PROMPT, [42], members)
    steps = model.generate(request)
    tokens, sound = generated(model, reference, 42, **members)
    assert (steps.tokens[0] == tokens).all()
    waveform = model.decode(steps.tokens[0])
    assert waveform.shape == sound.shape
    assert np.abs(waveform - sound).max() < 5e-4 * np.abs(sound).max()


@pytest.mark.parametrize("count", [1, 3, 6, 7])
def test_short_songs_have_the_tokens_of_transformers(
    count: int, folder: Path, reference: Any
) -> None:
    model = MusicModel(folder, Kind.FLOAT32)
    steps = model.generate(model.request(PROMPT, [7], {"max_new_tokens": count}))
    assert (steps.tokens[0] == generated(model, reference, 7, max_new_tokens=count)[0]).all()


@pytest.mark.parametrize("kind", Kind)
def test_every_way_to_run_gives_the_same_bits(
    kind: Kind,
    folder: Path,
    libraries: dict[str, ctypes.CDLL],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Libraries, threads, sequences alone or together, steps one by one or in blocks."""
    model = MusicModel(folder, kind)
    request = model.request(PROMPT, [7, 8], {"max_new_tokens": 70})
    together = model.generate(request)
    assert together.logits.shape[:2] == (2, 2)
    hidden = model._read_prompt(request, None, None)
    for library in libraries.values():
        monkeypatch.setattr("executor.engine.library.load", lambda library=library: library)
        with Pool(2) as pool:
            for number, seed in enumerate(request.seeds):
                alone = model.generate(model.request(PROMPT, [seed], {"max_new_tokens": 70}), pool)
                assert (alone.tokens[0] == together.tokens[number]).all()
                assert alone.logits[0].tobytes() == together.logits[number].tobytes()
            for block in (1, 13, 96):
                _, replayed, difference = model._decoder.replay(
                    hidden, together.tokens, request.seeds, request.sampling, pool, block=block
                )
                assert difference is None
                assert replayed.logits.tobytes() == together.logits.tobytes()


def test_the_prompt_and_the_melody_change_the_sound(folder: Path, tmp_path: Path) -> None:
    model = MusicModel(folder, Kind.FLOAT32)
    own = model.generate(model.request(PROMPT, [1], {}))
    other = model.generate(model.request("a loud drum", [1], {}))
    assert (own.tokens != other.tokens).any()
    changed = Path(shutil.copytree(folder, tmp_path / "model"))
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "chroma_length": 200}))
    longer = MusicModel(changed, Kind.FLOAT32)
    assert (own.tokens != longer.generate(longer.request(PROMPT, [1], {})).tokens).any()


def test_positions_of_a_melody_have_bounds(folder: Path, tmp_path: Path) -> None:
    assert read_chroma({}) == (12, 235)
    for length in (0, MAX_POSITIONS, 2.0):
        with pytest.raises(ModelRefused, match=f"chroma_length is {length}"):
            read_chroma({"chroma_length": length})
    changed = Path(shutil.copytree(folder, tmp_path / "model"))
    config = json.loads((changed / "config.json").read_text())
    config |= {"chroma_length": 8_000}
    config["decoder"]["max_position_embeddings"] = MAX_POSITIONS
    (changed / "config.json").write_text(json.dumps(config))
    model = MusicModel(changed, Kind.FLOAT32)
    with pytest.raises(
        TaskFailed, match=r"generation-rejected: .* and 8380 tokens of sound are too many"
    ):
        model.generate(model.request(PROMPT, [1], {"max_new_tokens": 8_380}))
