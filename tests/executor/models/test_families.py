"""Every class of model that TextToAudioPipeline lists: through the whole executor, or refused."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES,
    MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES,
)

from executor.determinism import profile
from executor.errors import Abstained, ModelRefused
from executor.job import Execution, ModelRef
from executor.models import families
from executor.models.families import FAMILIES, REFUSED, refusal
from executor.models.folders import describe_model, weights_digest
from executor.tasks import speaker_embedding
from executor.tasks.load_model import has_whole_blocks, load
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from protocol.model_limits import objection
from tests.executor.conftest import CLASSES, PROMPT, TIMEOUT, Run, digests, job, listed

OTHER = "fast bright drums"
# One pass, and no draw in it: the seed changes nothing.
SEEDLESS = ("fastspeech2_conformer", "fastspeech2_conformer_with_hifigan")
MEMBERS: Mapping[str, Any] = {
    "max_new_tokens": 12,
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 5,
    "top_p": 0.5,
    "num_return_sequences": 1,
    "guidance_scale": 1.0,
}
TINY = pytest.mark.parametrize("name", CLASSES)


def output(execution: Execution) -> dict[str, Any]:
    result = execution.outcome["result"]
    assert isinstance(result, dict)
    return dict(result["outputs"][0])


def test_the_table_is_transformers_own() -> None:
    expected = {
        *MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES,
        *MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES,
    }
    assert set(FAMILIES) | set(REFUSED) == expected
    assert not set(FAMILIES) & set(REFUSED)
    assert set(CLASSES.values()) == set(FAMILIES)


def test_the_documents_name_every_class() -> None:
    written = (Path(__file__).parents[3] / "docs" / "reference-documents.md").read_text()
    assert [name for name in (*FAMILIES, *REFUSED) if f"`{name}`" not in written] == []


@TINY
def test_each_family_depends_on_prompt_and_seed(
    execute: Run, tiny: dict[str, ModelRef], folders: Path, name: str
) -> None:
    first = output(execute(tiny[name]))
    assert output(execute(tiny[name], prompt=OTHER))["sha256"] != first["sha256"]
    seeded = output(execute(tiny[name], seed=2))["sha256"]
    assert (seeded == first["sha256"]) == (name in SEEDLESS)
    assert output(execute(tiny[name], again=True)) == first
    assert first["sampling_rate"] == describe_model(folders / "tiny" / name)["sampling_rate"]
    assert first["channels"] == (2 if name == "musicgen_stereo" else 1)
    assert first["frames"] >= 1_000


def test_another_process_and_plain_transformers_give_the_same_bytes(
    execute: Run,
    ready: WorkerStatus,
    second: tuple[WorkerSupervisor, WorkerStatus],
    tiny: dict[str, ModelRef],
    embedded: ModelRef,
    folders: Path,
    tmp_path: Path,
) -> None:
    """The second worker runs the models in reverse, and the embedded model first."""
    supervisor, status = second
    warm = {name: digests(execute(tiny[name])) for name in CLASSES}
    short = {"generation_config": {"max_new_tokens": 40}}
    tasks = [(embedded, short, digests(execute(embedded, **short)))]
    tasks += [(tiny[name], {}, warm[name]) for name in reversed(list(CLASSES))]
    for model, args, expected in tasks:
        task = job(model, {"prompt": PROMPT, "seed": 1, **args})
        execution = supervisor.run(task, timeout=TIMEOUT, progress=lambda _: None)
        assert digests(execution) == expected, model.id
        assert execution.trace["runtime"] == status.runtime == ready.runtime
    bare = subprocess.run(
        [sys.executable, "-c", BARE, str(folders / "tiny"), PROMPT, *CLASSES],
        env=profile.child_environment(tmp_path),
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(bare.stdout.splitlines()[-1]) == {name: one for name, (one,) in warm.items()}


BARE = """
import hashlib, json, sys, torch
from transformers import (AutoModelForTextToSpectrogram, AutoModelForTextToWaveform, AutoProcessor,
    AutoTokenizer, FastSpeech2ConformerHifiGan, SpeechT5HifiGan, TextToAudioPipeline, set_seed)
from executor.determinism import profile
from executor.tasks.speaker_embedding import embedding
profile.fix()
made = {}
for name in sys.argv[3:]:
    folder = f"{sys.argv[1]}/{name}"
    vocoder = None
    kind = AutoModelForTextToWaveform
    if name in ("speecht5", "fastspeech2_conformer"):
        kind = AutoModelForTextToSpectrogram
        hifigan = SpeechT5HifiGan if name == "speecht5" else FastSpeech2ConformerHifiGan
        vocoder = hifigan.from_pretrained(folder + "/vocoder")
        vocoder.config.sampling_rate = 16000
    wanted = {"speecht5": {"speaker_embeddings": torch.tensor([embedding(1, 16)])},
              "seamless_m4t": {"tgt_lang": "eng"}, "seamless_m4t_v2": {"tgt_lang": "eng"}}
    processor = AutoProcessor.from_pretrained(folder) if name == "bark" else None
    model = kind.from_pretrained(folder, attn_implementation=dict(profile.ATTENTION))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pipeline = TextToAudioPipeline(model=model, tokenizer=tokenizer, processor=processor,
                                   vocoder=vocoder)
    set_seed(1)
    if name == "fastspeech2_conformer_with_hifigan":
        audio = model(**tokenizer(sys.argv[2], return_tensors="pt")).waveform[0].numpy()
    else:
        audio = pipeline(sys.argv[2], forward_params=wanted.get(name, {}))["audio"]
    frames = audio.T.astype("<f4", order="C") + 0.0
    made[name] = hashlib.sha256(frames.tobytes()).hexdigest()
print(json.dumps(made))
"""


@TINY
def test_each_family_computes_in_exactly_its_precisions(
    execute: Run, tiny: dict[str, ModelRef], name: str
) -> None:
    family = FAMILIES[CLASSES[name]]
    full = digests(execute(tiny[name]))
    for dtype in families.DTYPES[1:]:
        execution = execute(tiny[name], dtype=dtype)
        if dtype in family.dtypes:
            assert digests(execution) != full, dtype
        else:
            assert execution.outcome == {"error": "generation-rejected"}, dtype
    for bits in (8, 4):
        execution = execute(tiny[name], quantize_bits=bits)
        rejected = execution.outcome == {"error": "generation-rejected"}
        assert rejected == (bits not in family.bits), bits


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_unsupported_member_is_named(family: families.Family) -> None:
    for member, value in MEMBERS.items():
        problem = objection(family.capabilities, {"generation_config": {member: value}})
        if member in family.honours:
            assert problem == ""
        else:
            assert problem.startswith(f"args.generation_config.{member}: ")
    assert objection(family.capabilities, {"generation_config": None}) == ""


@pytest.mark.parametrize("name", ["vits", *SEEDLESS])
def test_what_cannot_generate_takes_no_generation_config(
    execute: Run, tiny: dict[str, ModelRef], name: str
) -> None:
    """Left out and null are all the same; anything else is refused, and named."""
    absent = digests(execute(tiny[name]))
    assert digests(execute(tiny[name], generation_config=None)) == absent
    for config in ({}, {"top_k": None}, {"max_new_tokens": 9}, {"temperature": 0}):
        execution = execute(tiny[name], generation_config=config)
        assert execution.outcome == {"error": "generation-rejected"}
    able = FAMILIES[name].capabilities
    assert objection(able, {"generation_config": {}}).startswith("args.generation_config: ")
    problem = objection(able, {"generation_config": {"top_k": None, "temperature": 0}})
    assert problem.startswith("args.generation_config.temperature: ")


@pytest.mark.parametrize("name", ["speecht5", "seamless_m4t"])
def test_unsupported_member_is_generation_rejected(
    execute: Run, tiny: dict[str, ModelRef], name: str
) -> None:
    execution = execute(tiny[name], generation_config={"guidance_scale": 2.0})
    assert execution.outcome == {"error": "generation-rejected"}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_families_are_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    with pytest.raises(ModelRefused) as caught:
        load(tmp_path, "auto", None)
    assert refusal(name) == f"{name} models are not supported: {REFUSED[name]}"
    assert str(caught.value) == f"config.json: {refusal(name)}"


@pytest.mark.parametrize("name", [None, ["vits"] * 400, {"vits": None}, "v" * 4_000, "bert"])
def test_any_model_type_is_refused_in_one_line(name: object) -> None:
    assert 0 < len(refusal(name)) < 200


@pytest.mark.parametrize("name", ["qwen2_5_omni", "bert"])
def test_unsupported_family_is_not_described(
    tiny: dict[str, ModelRef], folders: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(folders / "tiny" / "vits", tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": name}))
    with pytest.raises(ModelRefused, match=rf"^config\.json: .*{name}"):
        describe_model(folder)


def test_a_spectrogram_needs_its_vocoder(
    execute: Run, tiny: dict[str, ModelRef], folders: Path
) -> None:
    folder = folders / "tiny" / "mute"
    shutil.copytree(folders / "tiny" / "speecht5", folder)
    shutil.rmtree(folder / "vocoder")
    with pytest.raises(Abstained, match=r"vocoder/config\.json") as caught:
        execute(listed(folders, "mute"))
    assert caught.value.reason == "model-missing"


def test_the_vocoder_is_in_the_digest(
    tiny: dict[str, ModelRef], folders: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(folders / "tiny" / "speecht5", tmp_path / "model")
    digest = weights_digest(folder)
    config = folder / "vocoder" / "config.json"
    config.write_text(config.read_text() + " ")
    after = weights_digest(folder)
    assert after != digest
    shutil.copytree(folder / "vocoder", folder / "vocoder" / "vocoder")
    assert weights_digest(folder) == after  # a vocoder has none of its own


def test_csm_reports_progress_and_tokens(
    supervisor: WorkerSupervisor, tiny: dict[str, ModelRef]
) -> None:
    shares: list[float] = []
    args = {"prompt": PROMPT, "seed": 1, "generation_config": {"max_new_tokens": 70}}
    execution = supervisor.run(job(tiny["csm"], args), timeout=TIMEOUT, progress=shares.append)
    assert 0 < shares[0] < 0.1
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    (blocks,) = cast(list[list[str]], execution.trace["tokens"])
    assert len(blocks) == 2


@pytest.mark.parametrize("setting", ["phonemize", "is_uroman"])
def test_tokenizer_that_runs_programs_is_refused(
    execute: Run, tiny: dict[str, ModelRef], folders: Path, setting: str
) -> None:
    folder = shutil.copytree(folders / "tiny" / "vits", folders / "tiny" / setting)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {setting: True}))
    with pytest.raises(Abstained, match=setting):
        execute(listed(folders, setting))


def test_prompt_without_known_characters_is_generation_rejected(
    execute: Run, tiny: dict[str, ModelRef]
) -> None:
    """The MMS models read letters alone; of others nothing is left to speak."""
    execution = execute(tiny["vits"], prompt="1234 🎵")
    assert execution.outcome == {"error": "generation-rejected"}


def test_speaker_embedding_follows_from_the_seed() -> None:
    """Golden: another implementation must draw the same numbers."""
    voice = speaker_embedding.embedding(7, 11)
    assert len(voice) == 11
    assert [number.hex() for number in voice[:2]] == GOLDEN
    assert math.isclose(sum(number * number for number in voice), 1.0)
    assert speaker_embedding.embedding(7, 16)[:8] != speaker_embedding.embedding(8, 16)[:8]
    assert len({*speaker_embedding.embedding(7, 512)}) == 512


GOLDEN = ["0x1.6728f47fdd055p-3", "-0x1.8823022a795b1p-2"]


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((64, 64), True), ((32, 128), True), ((33, 64), False), ((32, 63), False), ((64, 80), False)],
)
def test_four_bits_want_whole_blocks(shape: tuple[int, int], fits: bool) -> None:
    assert has_whole_blocks(*shape) == fits


def test_text_over_the_positions_of_speecht5_is_an_agreed_error(
    execute: Run, tiny: dict[str, ModelRef], folders: Path
) -> None:
    """A task that is over the listed limit is invalid; without the limit a fresh worker agrees."""
    limits: Any = describe_model(folders / "tiny" / "speecht5")["limits"]
    execution = execute(tiny["speecht5"], prompt="a" * (limits["prompt_characters"] + 1))
    assert execution.outcome == {"error": "generation-rejected"}
    assert "must match the size" in str(execution.trace["detail"])
