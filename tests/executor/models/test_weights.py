"""Tensors of safetensors files, mapped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from executor.errors import ModelRefused
from executor.models.weights import Weights

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(4, dtype=np.float16)


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_tensors_are_views_of_the_file(tmp_path: Path) -> None:
    save_file({"a": A, "b": B}, tmp_path / "model.safetensors")
    weights = Weights(tmp_path)
    assert sorted(weights) == ["a", "b"]
    assert (weights["a"] == A).all()
    assert (weights["b"] == B).all()
    for tensor in weights.values():
        assert not tensor.flags.writeable
        assert not tensor.flags.owndata


def test_bfloat16_and_unaligned_tensors_are_mapped(tmp_path: Path) -> None:
    header = {
        "half": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]},
        "whole": {"dtype": "F32", "shape": [], "data_offsets": [4, 8]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + 1)  # an odd length, so that no number is aligned
    content = np.array([0x3F80, 0xC000], "<u2").tobytes() + np.float32(2.5).tobytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    weights = Weights(tmp_path)
    assert weights["half"].tolist() == [[0x3F80, 0xC000]]
    assert not weights["half"].flags.aligned
    assert weights["whole"] == 2.5


def test_tensors_of_several_files_are_found_by_the_index(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": B, "c": B}, tmp_path / "model-00002-of-00002.safetensors")
    write_index(
        tmp_path,
        {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    )
    weights = Weights(tmp_path)
    assert sorted(weights) == ["a", "b"]
    assert (weights["b"] == B).all()


def test_tensor_that_nothing_read_is_refused(tmp_path: Path) -> None:
    save_file({"a": A, "lora.b": B}, tmp_path / "model.safetensors")
    weights = Weights(tmp_path)
    assert "lora.b" in weights
    assert len(weights) == 2
    assert (weights["a"] == A).all()
    with pytest.raises(ModelRefused, match=r"the engine does not compute with lora\.b"):
        weights.refuse_unread()
    assert weights.get("lora.b") is not None
    weights.refuse_unread()


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        (None, "has no model.safetensors, and no model.safetensors.index.json with a weight_map"),
        ({}, "with a weight_map"),
        ({"a": "b.safetensors"}, "names a file that is not in the folder"),
        ({"a": "../a.safetensors"}, "names a file that is not in the folder"),
        ({"a": 3}, "names a file that is not in the folder"),
        ({"b": "a.safetensors"}, r"a\.safetensors has no b, which model\.safetensors\.index"),
    ],
)
def test_index_that_leads_nowhere_is_refused(
    tmp_path: Path, weight_map: object, words: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tmp_path, folder):
        save_file({"a": A}, path / "a.safetensors")
    write_index(folder, weight_map)
    with pytest.raises(ModelRefused, match=words):
        Weights(folder)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"has no model\.safetensors"):
        Weights(tmp_path)


def test_integers_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.arange(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelRefused, match=r"model\.safetensors: a has the dtype I64"):
        Weights(tmp_path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": A}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelRefused, match=r"model\.safetensors is not safetensors"):
        Weights(tmp_path)
