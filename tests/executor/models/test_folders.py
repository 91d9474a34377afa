import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rfc8785

from executor.errors import Abstained, ModelRefused
from executor.models.file_checks import checked_files
from executor.models.folders import (
    EMBEDDED,
    SHIPPED,
    ModelFolders,
    describe_model,
    weights_digest,
)
from tests.executor.conftest import rewritten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded model as org/name in `tmp_path`."""
    return Path(shutil.copytree(SHIPPED / EMBEDDED, tmp_path / "org" / "name"))


def missing(folders: ModelFolders, model_id: str, revision: str = "1") -> str:
    with pytest.raises(Abstained) as caught:
        folders.locate(model_id, revision)
    assert caught.value.reason == "model-missing"
    return caught.value.detail


def test_the_shipped_model_is_always_found() -> None:
    assert ModelFolders([]).locate(EMBEDDED, "1") == SHIPPED / EMBEDDED


def test_user_folders_come_before_shipped_models(tmp_path: Path) -> None:
    users_folder = tmp_path / EMBEDDED
    users_folder.mkdir(parents=True)
    assert ModelFolders([tmp_path]).locate(EMBEDDED, "1") == users_folder


def test_a_revisions_own_folder_comes_before_the_plain_one(folder: Path) -> None:
    folders = ModelFolders([folder.parent.parent])
    special = folder.with_name("name@v2")
    special.mkdir()
    assert folders.locate("org/name", "v2") == special
    assert folders.locate("org/name", "v1") == folder


def test_an_unknown_model_is_missing() -> None:
    assert "none of the model folders" in missing(ModelFolders([]), "org/name")


@pytest.mark.parametrize(
    "model_id",
    [
        "..",
        "../x",
        "a/..",
        "a/../b",
        "/etc",
        "a//b",
        "a/b/c",
        "a/b\n",
        "",
        "a\0b",
        ".a/b",
        "a/b..c",
    ],
)
def test_an_id_never_leaves_the_folders(tmp_path: Path, model_id: str) -> None:
    inner = tmp_path / "inner" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "inner" / "x").mkdir()
    assert "not a model id" in missing(ModelFolders([inner]), model_id)


@pytest.mark.parametrize("revision", ["..", "../x", "a/b", "", "1\n"])
def test_a_revision_never_leaves_the_folders(revision: str) -> None:
    assert "not a model id" in missing(ModelFolders([]), EMBEDDED, revision)


def test_the_digest_is_the_specifications(folder: Path) -> None:
    hashes = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "preprocessor_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        )
    }
    expected = hashlib.sha256(b"helium/2/weights\0" + rfc8785.dumps(hashes)).hexdigest()
    assert weights_digest(folder) == expected


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "generation_config.json"])
def test_every_loaded_file_is_in_the_digest(folder: Path, name: str) -> None:
    digest = weights_digest(folder)
    content = (folder / name).read_bytes()
    # Of the weights the last byte, for no byte can be added to a file that is still safetensors.
    changed = content[:-1] + b"\x7f" if name.endswith(".safetensors") else content + b" "
    (folder / name).write_bytes(changed)
    assert weights_digest(folder) != digest


@pytest.mark.parametrize("name", ["README.md", "pytorch_model.bin", "code.py", ".gitattributes"])
def test_what_is_never_loaded_is_not_in_the_digest(folder: Path, name: str) -> None:
    digest = weights_digest(folder)
    (folder / name).write_bytes(b"anything")
    assert weights_digest(folder) == digest


def test_a_changed_file_is_hashed_again(folder: Path) -> None:
    folders = ModelFolders([])
    digest = folders.digest(folder)
    rewritten(folder / "generation_config.json", top_k=7)
    assert folders.digest(folder) != digest


def test_an_unchanged_file_is_not_read_again(folder: Path) -> None:
    folders = ModelFolders([])
    digest = folders.digest(folder)
    weights = folder / "model.safetensors"
    stat = weights.stat()
    with weights.open("r+b") as file:  # in place, then everything that is looked at as it was
        file.seek(-4, os.SEEK_END)
        file.write(b"\x7f\0\0\0")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert folders.digest(folder) == digest
    assert ModelFolders([]).digest(folder) != digest


def test_another_digest_than_the_listed_one_is_missing(folder: Path) -> None:
    folders = ModelFolders([folder.parent.parent])
    assert folders.find("org/name", "1", weights_digest(folder)) == folder
    with pytest.raises(Abstained, match="not the listed") as caught:
        folders.find("org/name", "1", "0" * 64)
    assert caught.value.reason == "model-missing"


def test_a_refused_folder_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(Abstained, match="safetensors") as caught:
        ModelFolders([folder.parent.parent]).find("org/name", "1", "0" * 64)
    assert caught.value.reason == "model-missing"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_in_a_configuration_is_refused(folder: Path, name: str) -> None:
    rewritten(folder / name, nested=[{"auto_map": {"AutoModel": "code.Model"}}])
    with pytest.raises(ModelRefused, match="auto_map"):
        weights_digest(folder)


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_an_attention_kernel_in_a_configuration_is_refused(folder: Path, key: str) -> None:
    rewritten(folder / "config.json", decoder={key: "somebody/kernel"})
    with pytest.raises(ModelRefused, match="attn_implementation"):
        weights_digest(folder)


def test_pickles_alone_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelRefused, match="safetensors"):
        weights_digest(folder)


def test_a_folder_without_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelRefused, match=r"config\.json"):
        weights_digest(folder)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelRefused, match="adapter_config"):
        weights_digest(folder)


@pytest.mark.parametrize(
    "named", ["../outside.safetensors", "/etc/passwd", "absent.safetensors", 7]
)
def test_an_index_that_names_what_is_not_in_the_folder_is_refused(
    folder: Path, named: object
) -> None:
    (folder.parent / "outside.safetensors").write_bytes(b"")
    index = {"weight_map": {"a": "model.safetensors", "b": named}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelRefused, match="names a file"):
        weights_digest(folder)


@pytest.mark.parametrize("named", [[], {}, None, 1, True, ["model.safetensors"]])
def test_an_index_that_names_no_file_at_all_is_refused(folder: Path, named: object) -> None:
    """Found by fuzzing: what cannot be hashed was a TypeError."""
    index = {"weight_map": {"a": "model.safetensors", "b": named}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelRefused, match="names a file"):
        weights_digest(folder)


def test_an_index_of_the_folders_own_files_is_fine(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors.index.json" in {path.name for path in checked_files(folder)}


def test_index_of_pickles_is_ignored(folder: Path) -> None:
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert weights_digest(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(ModelRefused, match="own folder"):
        weights_digest(folder)


def test_a_link_within_the_folder_is_fine(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    assert weights_digest(folder)


def test_a_folder_with_a_files_name_is_refused(folder: Path) -> None:
    (folder / "extra.json").mkdir()
    with pytest.raises(ModelRefused, match=r"extra\.json"):
        weights_digest(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff\xff", b"[" * 100_000, b" " * 5_000_000])
def test_invalid_json_configuration_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"config\.json"):
        weights_digest(folder)


def test_describe_the_embedded_model() -> None:
    assert describe_model(SHIPPED / EMBEDDED) == {
        "digest": weights_digest(SHIPPED / EMBEDDED),
        "family": "musicgen",
        "dtype": "float32",
        "tasks": ["text-to-music"],
        "limits": {
            "max_new_tokens": 2048,
            "generation_config": [
                "max_new_tokens",
                "do_sample",
                "temperature",
                "top_k",
                "top_p",
                "num_return_sequences",
                "guidance_scale",
            ],
            "dtypes": ["float32", "float16", "bfloat16"],
            "quantize_bits": [4, 8],
            "frame_rate": 50,
            "delay": 3,
        },
        "sampling_rate": 16_000,
    }


def test_describe_model_with_minimal_configuration(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "vits"}')
    described = describe_model(folder)
    assert described == {
        "digest": weights_digest(folder),
        "family": "vits",
        "dtype": "float32",
        "tasks": ["text-to-music"],
        "limits": {
            "generation_config": [],
            "dtypes": ["float32", "float16", "bfloat16"],
            "quantize_bits": [8],
        },
    }


def test_describe_refuses_a_configuration_that_is_no_object(folder: Path) -> None:
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelRefused, match="not an object"):
        describe_model(folder)


def test_what_the_parent_imports_does_not_import_torch() -> None:
    probe = (
        "import sys, executor.worker.supervisor, executor.models.folders;"
        "import executor.determinism.compute_class, executor.audio.manifest;"
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    root = SHIPPED.parent.parent
    assert subprocess.run([sys.executable, "-c", probe], cwd=root, check=False).returncode == 0
