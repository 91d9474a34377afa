"""What a Pop2Piano model's own files say is what counts: every parameter of them is heard."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Pop2PianoConfig

import schemas
from executor.errors import ModelRefused
from executor.job import ModelRef
from executor.tasks import pop2piano
from executor.tasks.pop2piano import LoadedPop2Piano, load, read_notes
from tests.executor.conftest import Run, digests, rewritten
from tests.executor.pianos import changed

# The reference document's list, with what each parameter is where a configuration leaves it out.
DEFAULTS = {
    "vocab_size": 2400,
    "composer_vocab_size": 21,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": 6,  # as many as num_layers
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "use_cache": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "dense_act_fn": "relu",
}
# The weights have these sizes: another one does not fit them.
SIZES = {
    "vocab_size": 140,
    "composer_vocab_size": 4,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 3,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "relative_attention_num_buckets": 16,
}
HEARD = {
    "relative_attention_max_distance": 64,
    "layer_norm_epsilon": 0.5,
    "dense_act_fn": "gelu_new",
}
# Of training and of speed alone.
SILENT = {"dropout_rate": 0.9, "initializer_factor": 7.0, "use_cache": False}


@pytest.fixture
def model(piano: ModelRef, folders: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    folder = tmp_path / "model"
    shutil.copytree(folders / piano.id, folder)
    return folder


def logits(folder: Path) -> Any:
    """What the model makes of a made-up song of 40 frames, `(1, 30, vocabulary)`."""
    features = torch.sin(torch.arange(40 * 64.0)).reshape(1, 40, 64)
    with torch.no_grad():
        output = load(folder, "float32", None).model(
            inputs_embeds=features, decoder_input_ids=torch.arange(30)[None]
        )
    return output.logits


def test_the_documents_defaults_are_the_librarys() -> None:
    assert {name: getattr(Pop2PianoConfig(), name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", SIZES)
def test_a_parameter_of_the_configuration_must_fit_the_weights(name: str, model: Path) -> None:
    rewritten(model / "config.json", **{name: SIZES[name]})
    with pytest.raises(ModelRefused):
        load(model, "float32", None)


@pytest.mark.parametrize("name", [*HEARD, *SILENT])
def test_configuration_parameter_changes_the_output_unless_for_training(
    name: str, model: Path
) -> None:
    expected = logits(model)
    rewritten(model / "config.json", **{name: {**HEARD, **SILENT}[name]})
    assert torch.equal(logits(model), expected) is (name in SILENT)


def test_a_gated_feed_forward_layer_has_other_weights(model: Path) -> None:
    rewritten(model / "config.json", feed_forward_proj="relu", is_gated_act=False)
    with pytest.raises(ModelRefused, match=r"wi\.weight"):
        load(model, "float32", None)


def test_configuration_without_weights_is_refused(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelRefused, match=r"no file named model\.safetensors"):
        load(model, "float32", None)


def test_weights_that_do_not_fit_are_told(model: Path) -> None:
    rewritten(model / "config.json", num_layers=3)
    with pytest.raises(ModelRefused, match="missing_keys"):
        load(model, "auto", None)


def test_model_without_composers_is_refused(model: Path) -> None:
    rewritten(model / "generation_config.json", composer_to_feature_token=None)
    with pytest.raises(ModelRefused, match="no composer_to_feature_token"):
        load(model, "auto", None)


EXTRACTOR = {
    "sampling_rate": 16_000,
    "window_size": 2_048,
    "hop_length": 512,
    "min_frequency": 200.0,
    "num_bars": 4,
}


def listening(folders: Path, **members: object) -> ModelRef:
    """A copy whose feature extractor has a file of its own, as published models do."""
    both = "processor_config.json"
    settings = json.loads((folders / "tiny" / "pop2piano" / both).read_text())["feature_extractor"]
    return changed(folders, "preprocessor_config.json", settings | members, without=both)


def test_a_feature_extractor_may_have_a_file_of_its_own(
    cover: Run, own: list[str], folders: Path
) -> None:
    assert digests(cover(model=listening(folders))) == own


@pytest.mark.parametrize("name", EXTRACTOR)
def test_every_feature_extractor_parameter_changes_the_output(
    cover: Run, own: list[str], folders: Path, name: str
) -> None:
    assert digests(cover(model=listening(folders, **{name: EXTRACTOR[name]}))) != own


@pytest.mark.parametrize(
    ("file", "members"),
    [
        ("generation_config.json", {"max_length": 20}),
        ("generation_config.json", {"num_beams": 3}),
        ("generation_config.json", {"do_sample": True}),
        ("tokenizer_config.json", {"default_velocity": 20}),
        ("tokenizer_config.json", {"num_bars": 1}),
    ],
    ids=str,
)
def test_models_own_files_change_the_output(
    cover: Run, own: list[str], folders: Path, file: str, members: dict[str, object]
) -> None:
    assert digests(cover(model=changed(folders, file, members))) != own


def test_task_arguments_override_the_models_settings(
    cover: Run, own: list[str], folders: Path
) -> None:
    """Of the same thing; what the task leaves out stays the model's own."""
    changed_folders = changed(folders, "generation_config.json", {"num_beams": 2, "max_length": 21})
    config = {"num_beams": 1, "max_new_tokens": 47}
    assert digests(cover(model=changed_folders, generation_config=config)) == own
    for name in config:
        rest = {key: value for key, value in config.items() if key != name}
        assert digests(cover(model=changed_folders, generation_config=rest)) != own


NOTE, VELOCITY, TIME = 3, 131, 133  # where the tiny vocabulary begins each type; special is 0
END = 1
DOWN, UP = VELOCITY + 1, VELOCITY
BEATS = torch.arange(60.0)[None] / 2  # half a second each: 384 ticks


@pytest.fixture(scope="module")
def loaded(piano: ModelRef, folders: Path) -> LoadedPop2Piano:
    return load(folders / piano.id, "float32", None)


@pytest.mark.parametrize(
    ("tokens", "notes"),
    [
        # Two beats on, key 60 down, three beats on, key 60 up.
        ([TIME + 2, DOWN, NOTE + 60, TIME + 3, UP, NOTE + 60, END], [(768, 60, 1920, 77)]),
        (
            [DOWN, NOTE + 60, NOTE + 64, TIME + 1, UP, NOTE + 60, NOTE + 64, END],
            [(0, 60, 384, 77), (0, 64, 384, 77)],
        ),
        # What follows the end is not played; a key that is never let go ends with its segment.
        ([DOWN, NOTE + 60, END, TIME + 1, DOWN, NOTE + 62], [(0, 60, 4608, 77)]),
        ([DOWN, NOTE + 60], [(0, 60, 4608, 77)]),
        ([TIME + 2, DOWN, END], []),
    ],
)
def test_each_token_is_a_time_a_velocity_a_note_or_special(
    loaded: LoadedPop2Piano, tokens: list[int], notes: list[tuple[int, ...]]
) -> None:
    features = {"beatsteps": BEATS, "extrapolated_beatstep": BEATS}
    decoded = read_notes(loaded, features, torch.tensor([tokens]))
    assert [(n.start, n.pitch, n.end, n.velocity) for n in decoded] == notes


def test_it_is_an_encoder_and_a_decoder(loaded: LoadedPop2Piano) -> None:
    assert loaded.model.config.is_encoder_decoder
    assert {"encoder", "decoder"} <= {name for name, _ in loaded.model.named_children()}


# What the library's own calls take besides, and a task does not.
FORWARD = (
    *("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "head_mask"),
    *("decoder_head_mask", "cross_attn_head_mask", "encoder_outputs", "past_key_values"),
    *("inputs_embeds", "input_features", "decoder_inputs_embeds", "labels", "use_cache"),
    *("output_attentions", "output_hidden_states", "return_dict", "cache_position"),
)
GENERATE = ("return_dict_in_generate", "output_attentions", "min_length", "max_length", "use_cache")


def test_schema_refuses_other_arguments_of_the_library() -> None:
    song = {"sha256": "0" * 64, "size": 1}
    task: dict[str, Any] = {"model": "tiny/pop2piano", "audio": [song], "seed": 1}
    schemas.check("pop2piano", task)
    for name in FORWARD:
        with pytest.raises(schemas.SchemaViolation, match="is unknown") as caught:
            schemas.check("pop2piano", {**task, name: 1})
        assert caught.value.field == name
    for name in GENERATE:
        with pytest.raises(schemas.SchemaViolation, match="is unknown") as caught:
            schemas.check("pop2piano", {**task, "generation_config": {name: 1}})
        assert caught.value.field == f"generation_config.{name}"


def test_schema_allows_exactly_the_members_of_generate() -> None:
    members = schemas.load("pop2piano")["properties"]["generation_config"]["properties"]
    assert set(members) == {*pop2piano.MEMBERS, "num_return_sequences"}
