"""Configurations that name another model, read a clock, or are no JSON that all read alike."""

import json
import shutil
from pathlib import Path

import pytest

from executor.errors import ModelRefused
from executor.models.folders import EMBEDDED, SHIPPED, describe_model, weights_digest
from executor.models.safetensors import tensor_offsets

OTHER = "somebody/model"
# File, member and value; each is refused with a sentence that names the file and the member.
MEMBERS = [
    ("processor_config.json", "audio_tokenizer", {"audio_tokenizer_name_or_path": OTHER}),
    ("processor_config.json", "audio_tokenizer", OTHER),
    ("tokenizer_config.json", "audio_tokenizer_name_or_path", OTHER),
    ("config.json", "assistant_model", OTHER),
    ("config.json", "backbone", "resnet50"),
    ("config.json", "use_pretrained_backbone", True),
    ("config.json", "base_model_name_or_path", OTHER),
    ("config.json", "max_time", 1.5),
    ("config.json", "cache_implementation", "static"),
    ("config.json", "prompt_lookup_num_tokens", 3),
    ("generation_config.json", "max_time", 0),
    ("generation_config.json", "stop_strings", ["a"]),
    ("generation_config.json", "compile_config", {"mode": "default"}),
    ("generation_config.json", "cache_implementation", "offloaded"),
    ("generation_config.json", "a_setting_of_a_later_version", 1),
    ("generation_config.json", "top_k", "50"),
    ("generation_config.json", "do_sample", 1),
    ("generation_config.json", "eos_token_id", {"a": 1}),
    ("config.json", "architectures", "MusicgenForConditionalGeneration"),
    ("config.json", "architectures", 7),
    ("config.json", "architectures", ["NoSuchModel"]),
    ("tokenizer_config.json", "tokenizer_class", "NoSuchTokenizer"),
    ("preprocessor_config.json", "feature_extractor_type", "NoSuchExtractor"),
    ("tokenizer_config.json", "tokenizer_class", ["T5Tokenizer"]),
    ("config.json", "vocab_size", 2**70),
]
# The bytes of a config.json, and what is said of it.
CONTENTS = {
    "mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "utf-16": ("{}".encode("utf-16"), "byte order mark"),
    "latin-1": (b'{"a": "\xe9"}', "not UTF-8: byte 7"),
    "infinite": (b'{"a": 1e400}', "number 1e400 is too large"),
    "digits": (b'{"a": ' + b"1" * 100_000 + b"}", "is too large"),
    "nan": (b'{"a": NaN}', "number NaN"),
    "twice": (b'{"a": 1, "a": 2}', 'member "a" occurs twice'),
    "surrogate": (b'{"a": "\\ud800"}', "lone surrogate"),
    "deep": (b"[" * 100_000, "nested deeper than 64"),
    "deep-object": (b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper than 64"),
    "list": (b"[]", "is not an object"),
    "empty": (b"", "is not JSON"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / EMBEDDED, tmp_path / "model"))


@pytest.mark.parametrize(("file", "member", "value"), MEMBERS)
def test_member_that_no_model_may_set_is_refused(
    folder: Path, file: str, member: str, value: object
) -> None:
    path = folder / file
    document = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(document | {member: value}))
    with pytest.raises(ModelRefused) as caught:
        describe_model(folder)
    assert str(caught.value).startswith(file)
    assert member in str(caught.value)


@pytest.mark.parametrize("name", CONTENTS)
def test_file_that_readers_take_differently_is_refused(folder: Path, name: str) -> None:
    content, reason = CONTENTS[name]
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelRefused, match=reason) as caught:
        describe_model(folder)
    assert str(caught.value).startswith("config.json")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "spiece.model"])
def test_git_lfs_pointer_says_what_to_do(folder: Path, name: str) -> None:
    (folder / name).write_bytes(CONTENTS["lfs"][0])
    with pytest.raises(ModelRefused, match=f"{name} is a Git LFS pointer.*run `git lfs pull`"):
        weights_digest(folder)


def test_part_of_a_family_that_is_not_served_is_refused(folder: Path) -> None:
    """Such a part could bring in a pretrained backbone."""
    config = json.loads((folder / "config.json").read_text())
    config["text_encoder"]["model_type"] = "detr"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match='a part of the model_type "detr"'):
        describe_model(folder)


def test_vocabulary_has_numbers_of_tokens(folder: Path) -> None:
    vocabularies: tuple[object, ...] = (
        *([], {"a": -1}, {"a": "b"}, {"a": 1.5}, {"a": True}, {"a": None}),
    )
    for vocabulary in vocabularies:
        (folder / "added_tokens.json").write_text(json.dumps(vocabulary))
        with pytest.raises(ModelRefused, match=r"added_tokens\.json"):
            describe_model(folder)


def test_settings_that_old_versions_saved_are_allowed(folder: Path) -> None:
    """As in the configurations of well-known models."""
    config = json.loads((folder / "config.json").read_text())
    config["text_encoder"] |= {
        "num_beam_groups": 1,
        "diversity_penalty": 0.0,
        "_name_or_path": "t5-base",
        "max_time": None,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"model_max_length": int(1e30), "name_or_path": "t5-base"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert describe_model(folder)["tasks"] == ["text-to-music"]


def test_file_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    Path(folder / "a\udcff.json").write_text("{}")
    with pytest.raises(ModelRefused, match="lone surrogate"):
        describe_model(folder)


def test_shape_that_no_tensor_can_have_is_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelRefused, match=r"x\.safetensors"):
        tensor_offsets(path)
