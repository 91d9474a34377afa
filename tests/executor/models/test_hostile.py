"""Models made to do harm: each is refused for its own reason, and nothing of it ever runs."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from executor.errors import Abstained, ModelRefused
from executor.job import ModelRef
from executor.models import safetensors
from executor.models.folders import EMBEDDED, SHIPPED, ModelFolders, weights_digest
from executor.models.inventory import inventory
from tests.executor.conftest import Run, digests, rewritten

Harm = Callable[[Path, Path], None]  # to a model's folder; the canary is what it tries to write

WEIGHTS = "model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Bomb:
    """Whoever unpickles it writes the canary."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self._canary}",)


def code(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()\nclass Model: pass\n"


def bomb(name: str) -> Harm:
    def harm(folder: Path, canary: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Bomb(canary)))

    return harm


def renamed_bomb(folder: Path, canary: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(canary)))


def named_bomb(folder: Path, canary: Path) -> None:
    (folder / "evil.bin").write_bytes(pickle.dumps(Bomb(canary)))
    rewritten(folder / "config.json", transformers_weights="evil.bin")


def setting(file: str, **members: object) -> Harm:
    def harm(folder: Path, canary: Path) -> None:
        (folder / "code.py").write_text(code(canary))
        rewritten(folder / file, **members)

    return harm


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> Harm:
    """A weights file of this header and data; `length` is what it says of its header."""

    def harm(folder: Path, canary: Path) -> None:
        prefix = struct.pack("<Q", len(header) if length is None else length)
        (folder / WEIGHTS).write_bytes(prefix + header + data)

    return harm


def tensors(data: int, **entries: object) -> Harm:
    return raw(json.dumps(entries).encode(), bytes(data))


def tensor(first: int, end: int, *shape: object, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, end]}


def truncated(folder: Path, canary: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def oversized(folder: Path, canary: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"more")


def index(folder: Path, canary: Path) -> None:
    (folder.parent / "outside.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    named = {"weight_map": {"a": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(named))


def linked(name: str) -> Harm:
    def harm(folder: Path, canary: Path) -> None:
        outside = folder.parent / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return harm


def pipe(folder: Path, canary: Path) -> None:
    os.mkfifo(folder / "vocab.txt")


CASES: dict[str, tuple[Harm, str]] = {
    "pickle-bin": (bomb("pytorch_model.bin"), "only pytorch_model.bin .pickled weights are never"),
    "pickle-pt": (bomb("model.pt"), r"only model\.pt .pickled weights are never loaded"),
    "pickle-ckpt": (bomb("model.ckpt"), r"only model\.ckpt .pickled weights are never loaded"),
    "pickle-in-disguise": (renamed_bomb, "not safetensors: .*header too large"),
    "pickle-named": (named_bomb, r"config\.json sets transformers_weights"),
    "auto-map": (
        setting("config.json", auto_map={"AutoModel": "code.Model"}),
        r"config\.json sets auto_map",
    ),
    "auto-map-tokenizer": (
        setting("tokenizer_config.json", auto_map={"AutoTokenizer": [None, "code.Model"]}),
        r"tokenizer_config\.json sets auto_map",
    ),
    "auto-map-generation": (
        setting("generation_config.json", auto_map={"x": "code.Model"}),
        r"generation_config\.json sets auto_map",
    ),
    "custom-pipeline": (
        setting("config.json", custom_pipelines={"text-to-audio": {"impl": "code.Model"}}),
        r"config\.json sets custom_pipelines",
    ),
    "custom-class": (
        setting("config.json", architectures=["code.Model"]),
        r'names code in architectures: "code\.Model"',
    ),
    "dropout": (
        setting("tokenizer.json", model={"type": "BPE", "dropout": 0.5}),
        r"tokenizer\.json has a dropout, 0\.5",
    ),
    "custom-tokenizer": (
        setting("tokenizer_config.json", tokenizer_class="somebody/repo--code.Model"),
        'names code in tokenizer_class: "somebody/repo--code.Model"',
    ),
    "custom-kernel": (
        setting("config.json", _attn_implementation="somebody/kernel"),
        "sets _attn_implementation",
    ),
    "quantised-by-itself": (
        setting("config.json", quantization_config={"quant_method": "gptq"}),
        "sets quantization_config",
    ),
    "other-file": (
        setting("tokenizer_config.json", tokenizer_file="/etc/passwd"),
        'names another file in tokenizer_file: "/etc/passwd"',
    ),
    "other-vocabulary": (
        setting("tokenizer_config.json", vocab_file="../../other/vocab.txt"),
        'names another file in vocab_file: "../../other/vocab.txt"',
    ),
    "other-by-position": (
        setting("tokenizer_config.json", init_inputs=["/etc/passwd"]),
        "sets init_inputs",
    ),
    "index-outside": (index, "index.json names a file that is not in the folder"),
    "link-weights": (linked(WEIGHTS), r"model\.safetensors is not a file of the model's own"),
    "link-config": (linked("config.json"), r"config\.json is not a file of the model's own"),
    "pipe": (pipe, r"vocab\.txt is not a file of the model's own folder"),
    "truncated": (truncated, "file not fully covered"),
    "oversized": (oversized, "file not fully covered"),
    "empty": (raw(b"", length=0), "not safetensors"),
    "seven-bytes": (lambda folder, _: os.truncate(folder / WEIGHTS, 7), "header too small"),
    "header-too-long": (
        raw(b" " * (safetensors.HEADER_LIMIT + 1)),
        "header of 16777217 bytes, over",
    ),
    "header-longer-than-file": (raw(b"{}", length=2**63), "header too large"),
    "header-no-object": (raw(b"[]"), "not safetensors: .*invalid type: sequence"),
    "header-too-deep": (raw(b"[" * 100_000), "is not safetensors"),
    "twice": (raw(b'{"a":{},"a":{}}'), "not safetensors: .*missing field"),
    "hole": (
        tensors(8, a=tensor(0, 4, 1), b=tensor(5, 8, 3, dtype="U8")),
        "invalid offset",
    ),
    "overlap": (tensors(8, a=tensor(0, 8, 2), b=tensor(4, 8, 1)), "invalid offset"),
    "before-the-data": (tensors(4, a=tensor(-4, 0, 1)), "integer `-4`, expected usize"),
    "behind-the-end": (tensors(4, a=tensor(0, 4096, 1024)), "file not fully covered"),
    "wrong-shape": (tensors(4, a=tensor(0, 4, 2)), "invalid shape, data type, or offset"),
    "negative-shape": (tensors(4, a=tensor(0, 4, -1, -1)), "integer `-1`, expected usize"),
    "no-shape": (tensors(4, a=tensor(0, 4, "1")), "invalid type: string"),
    "no-tensor": (tensors(4, a=7), "invalid type: integer"),
    "unknown-dtype": (tensors(4, a=tensor(0, 4, 1, dtype="OBJECT")), "unknown variant `OBJECT`"),
    "complex-dtype": (tensors(8, a=tensor(0, 8, 1, dtype="C64")), "a has the dtype C64"),
    "many-dimensions": (tensors(4, a=tensor(0, 4, *[1] * 65)), "a has 65 dimensions"),
    "size-overflows": (tensors(4, a=tensor(0, 4, 2**62, 4)), "overflow computing buffer size"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_model_is_refused_for_its_reason(
    run: Run, folders: Path, tmp_path: Path, name: str
) -> None:
    """Through the real worker, listed with a digest: as far as a task ever gets."""
    harm, reason = CASES[name]
    folder, canary = folders / "hostile" / name, folders / "hostile" / f"{name}.canary"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    harm(folder, canary)
    with pytest.raises(Abstained, match=reason) as caught:
        run(model=ModelRef(f"hostile/{name}", "1", "0" * 64))
    assert caught.value.reason == "model-missing"
    assert not canary.exists()
    with pytest.raises(ModelRefused, match=reason):
        weights_digest(folder)


def test_canaries_detect_executed_code(tmp_path: Path) -> None:
    """So that the test above can fail: pickle and code do what they are made for."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "pickle")))  # noqa: S301  # our own
    exec(code(tmp_path / "code"), {})  # noqa: S102
    assert (tmp_path / "pickle").exists()
    assert (tmp_path / "code").exists()


def test_worker_continues_after_refusing_a_hostile_model(run: Run, folders: Path) -> None:
    """Refusing is no accident: the same worker goes on and gives the same bytes."""
    expected = digests(run())
    folder = folders / "hostile" / "between"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    truncated(folder, folder)
    with pytest.raises(Abstained):
        run(model=ModelRef("hostile/between", "1", "0" * 64))
    assert digests(run(again=True)) == expected


def test_pickles_beside_safetensors_are_ignored(run: Run, folders: Path) -> None:
    """Many a repository has both: what is loaded is the safetensors, alike to the last bit."""
    folder = folders / "hostile" / "both"
    canary = folders / "hostile" / "both.canary"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    (folder / "modeling_evil.py").write_text(code(canary))
    assert digests(run(model=ModelRef("hostile/both", "1", weights_digest(folder)))) == digests(
        run()
    )
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "F64"])
def test_a_nan_is_found_wherever_it_is(tmp_path: Path, kind: str) -> None:
    """Also where the numbers are not aligned, and not where they are merely large."""
    dtype, mask, infinity = safetensors.NAN_PATTERNS[kind]
    size = np.dtype(dtype).itemsize
    numbers = np.full(safetensors.SCAN_NUMBERS + 3, infinity, dtype)  # infinity is a number
    numbers[1] = mask >> 1
    path = tmp_path / "x.safetensors"

    def write() -> None:
        entries = {
            "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "b": {"dtype": kind, "shape": [len(numbers)], "data_offsets": [1, 1 + numbers.nbytes]},
        }
        header = json.dumps(entries).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + b"\xff" + numbers.tobytes())

    write()
    assert safetensors.first_nan_tensor(path) == ""
    for place, sign in ((len(numbers) - 1, 0), (0, 1)):
        numbers[:] = 0
        numbers[place] = (infinity + 1) | sign << (8 * size - 1)
        write()
        assert safetensors.first_nan_tensor(path) == "b"


def test_whole_numbers_are_never_nan(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.full(9, -1, np.int32)}, path)
    assert safetensors.first_nan_tensor(path) == ""
    save_file({}, path)
    assert safetensors.first_nan_tensor(path) == ""


@pytest.mark.parametrize("sampling", [True, False])
def test_weights_that_hold_nan_are_an_agreed_outcome(
    run: Run, folders: Path, sampling: bool
) -> None:
    """Every member sees the same weights; also where the sound would have hidden the NaN."""
    folder = folders / "hostile" / f"nan-{sampling}"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    content = load_file(folder / WEIGHTS)
    content["decoder.lm_heads.3.weight"][5, 5] = np.nan
    save_file(content, folder / WEIGHTS, metadata={"format": "pt"})
    model = ModelRef(f"hostile/nan-{sampling}", "1", weights_digest(folder))
    execution = run(model=model, generation={"do_sample": sampling})
    assert execution.outcome == {"error": "non-finite-output"}
    assert execution.trace["detail"] == f"NaN in {WEIGHTS}: decoder.lm_heads.3.weight"


def cached(hub: Path, name: str) -> tuple[Path, Path]:
    """The embedded model as a Hugging Face cache keeps it; returns the snapshot and the blobs."""
    snapshot = hub / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in (SHIPPED / EMBEDDED).iterdir():
        shutil.copyfile(file, blobs / f"blob-of-{file.name}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"blob-of-{file.name}")
    return snapshot, blobs


def test_models_in_a_hugging_face_cache_are_found(run: Run, folders: Path) -> None:
    snapshot, _ = cached(folders, "hub/music")
    digest = weights_digest(SHIPPED / EMBEDDED)
    assert weights_digest(snapshot) == digest
    assert digests(run(model=ModelRef("hub/music", COMMIT, digest))) == digests(run())


def test_a_cache_is_searched_at_the_listed_revision_only(tmp_path: Path) -> None:
    snapshot, _ = cached(tmp_path, "hub/music")
    folders = ModelFolders([tmp_path])
    assert folders.locate("hub/music", COMMIT) == snapshot
    with pytest.raises(Abstained, match="none of the model folders"):
        folders.locate("hub/music", "main")
    (snapshot.parent.parent / "refs").mkdir()
    reference = snapshot.parent.parent / "refs" / "main"
    for outside in ("..", "../../..", "/etc", COMMIT[:-1], ""):
        reference.write_text(outside)
        with pytest.raises(Abstained, match="none of the model folders"):
            folders.locate("hub/music", "main")
    reference.write_text(COMMIT)
    assert folders.locate("hub/music", "main") == snapshot


@pytest.mark.parametrize("target", ["../../../other/blobs/x", "../../refs/x", "/etc/passwd"])
def test_snapshot_links_only_to_its_own_blobs(tmp_path: Path, target: str) -> None:
    snapshot, blobs = cached(tmp_path, "hub/music")
    place = snapshot / target
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(blobs / "blob-of-config.json", place)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(target)
    with pytest.raises(ModelRefused, match=r"config\.json is not a file of the model's own"):
        weights_digest(snapshot)


def test_only_a_cache_may_link_to_blobs(tmp_path: Path) -> None:
    """The same links in any other folder lead out of it."""
    snapshot, _ = cached(tmp_path, "hub/music")
    plain = snapshot.parent.parent.rename(tmp_path / "music")
    with pytest.raises(ModelRefused, match="is not a file of the model's own folder"):
        weights_digest(plain / "snapshots" / COMMIT)


def test_model_folder_linked_outside_is_refused(run: Run, folders: Path, tmp_path: Path) -> None:
    """The worker could not follow it, and a model id must not lead anywhere else."""
    outside = Path(shutil.copytree(SHIPPED / EMBEDDED, tmp_path / "outside"))
    (folders / "hostile").mkdir(exist_ok=True)
    (folders / "hostile" / "link").symlink_to(outside)
    with pytest.raises(Abstained, match="leads out of the model folder") as caught:
        run(model=ModelRef("hostile/link", "1", weights_digest(outside)))
    assert caught.value.reason == "model-missing"
    refused = {model.id: model.refused for model in inventory([folders])}
    assert "leads out of the model folder" in refused["hostile/link"]


def test_a_link_within_the_model_folders_is_fine(run: Run, folders: Path) -> None:
    shutil.copytree(SHIPPED / EMBEDDED, folders / "linked" / "target")
    (folders / "linked" / "name").symlink_to("target")
    model = ModelRef("linked/name", "1", weights_digest(SHIPPED / EMBEDDED))
    assert digests(run(model=model)) == digests(run())


def test_vocabulary_words_are_not_taken_for_settings(tmp_path: Path) -> None:
    """A vocabulary may hold any word, those that mean something elsewhere too."""
    folder = Path(shutil.copytree(SHIPPED / EMBEDDED, tmp_path / "model"))
    (folder / "vocab.json").write_text(json.dumps({"vocab_file": 1, "architectures": 2}))
    assert weights_digest(folder)
