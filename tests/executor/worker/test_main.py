"""Jobs through the real worker: what they come to, and that it is the same bytes every time."""

import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from safetensors.numpy import load_file, save_file

from executor.determinism import profile
from executor.errors import Abstained, ErrorCode, TaskFailed
from executor.job import Execution, ModelRef
from executor.models.folders import EMBEDDED, SHIPPED, ModelFolders
from executor.tasks import text_to_music
from executor.tasks.arguments import sequence_seeds
from executor.worker.backends.transformers import TransformersBackend
from executor.worker.messages import JobAbstained, JobDifferent, JobDone, JobFailed
from executor.worker.runner import JobRunner, bounded_trace
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from protocol.constants import TRACE_LIMIT
from tests.executor.conftest import PROMPT, TIMEOUT, Run, copied, digests, job, rewritten


def samples(execution: Execution, place: int = 0) -> np.ndarray[Any, Any]:
    return np.frombuffer(execution.files[place].read_bytes(), "<f4")


def outputs(execution: Execution) -> list[dict[str, Any]]:
    result = execution.outcome["result"]
    assert isinstance(result, dict)
    return list(result["outputs"])


def reweighted(folder: Path, part: str, change: Any) -> None:
    """Change one tensor of a model's weights."""
    weights = load_file(folder / "model.safetensors")
    weights[part] = change(weights[part])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


BARE = """
import json, sys, torch
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False
torch.use_deterministic_algorithms(True)
from transformers import AutoModelForTextToWaveform, AutoTokenizer, TextToAudioPipeline, set_seed
folder, cases, target = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
model = AutoModelForTextToWaveform.from_pretrained(folder)
pipeline = TextToAudioPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
for place, (seed, arguments) in enumerate(cases):
    set_seed(seed)
    made = pipeline(sys.argv[4], generate_kwargs=arguments)
    assert made["sampling_rate"] == 16000
    made["audio"].astype("<f4").tofile(f"{target}/{place}")
"""


def test_worker_output_equals_plain_transformers(run: Run, tmp_path: Path) -> None:
    """Bit for bit: transformers called directly, in a process of its own, same profile."""
    rich = {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "guidance_scale": 2.0}
    second = int(hashlib.sha256(b"helium/2/sequence\0" + bytes(7) + b"\x05" + b"\0\0\0\1")
                 .hexdigest()[:8], 16)  # fmt: skip
    cases: list[tuple[int, dict[str, object]]] = [
        (5, {"max_new_tokens": 100, **rich}),
        (second, {"max_new_tokens": 100, **rich}),
        (6, {"max_new_tokens": 30, "do_sample": False}),
        (7, {}),
    ]
    folder = str(SHIPPED / EMBEDDED)
    subprocess.run(
        [sys.executable, "-c", BARE, folder, json.dumps(cases), str(tmp_path), PROMPT],
        env=profile.child_environment(tmp_path),
        check=True,
        capture_output=True,
    )
    both = run(seed=5, generation={**cases[0][1], "num_return_sequences": 2})
    greedy = run(seed=6, generation={"max_new_tokens": 30, "do_sample": False})
    execution = run(seed=7, generation={"max_new_tokens": None})
    assert outputs(execution)[0]["frames"] == 500 * 320
    files = [*both.files, *greedy.files, *execution.files]
    assert len(files) == 4
    for place, path in enumerate(files):
        assert path.read_bytes() == (tmp_path / str(place)).read_bytes(), cases[place]


def test_the_manifest_describes_the_files(run: Run) -> None:
    execution = run(generation={"max_new_tokens": 253, "num_return_sequences": 2})
    assert len(execution.files) == 2
    for path, output in zip(execution.files, outputs(execution), strict=True):
        content = path.read_bytes()
        assert output["sha256"] == hashlib.sha256(content).hexdigest()
        assert output["size"] == len(content) == 4 * output["frames"]
        assert len(output["chunks"]) == 2
        assert (output["frames"], output["channels"]) == (5 * 16_000, 1)
        assert output["sampling_rate"] == 16_000


def test_the_embedded_model_is_neither_silent_nor_clipped(run: Run) -> None:
    for prompt in (PROMPT, "fast bright arpeggio", "ночь 🎵"):
        sound = samples(run(prompt=prompt, generation={"max_new_tokens": 253}))
        assert 0.05 < math.sqrt(float(np.mean(sound**2))) < 0.5
        assert float(np.abs(sound).max()) < 0.99
        assert abs(float(sound.mean())) < 0.001


def test_prompts_are_cut_to_512_characters(run: Run) -> None:
    """The embedded model hears 512 characters, so attention stays small."""
    longest = digests(run(prompt="🎵" * 4096))
    assert longest == digests(run(prompt="🎵" * 512))
    assert longest != digests(run(prompt="🎵"))


def test_the_same_bytes_warm_and_after_other_tasks(run: Run) -> None:
    """Those of a second worker are in test_families."""
    first = digests(run())
    assert digests(run(again=True)) == first
    run(again=True, generation={"do_sample": False, "guidance_scale": 1.0, "max_new_tokens": 9})
    run(again=True, dtype="bfloat16")
    run(again=True, generation={"temperature": 0, "top_k": 3, "num_return_sequences": 2})
    assert digests(run(again=True)) == first


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a slow sad piano."},
        {"seed": 2},
        {"seed": 2**32 - 1},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
        {"quantize_bits": 8},
        {"quantize_bits": 4},
        {"generation": {"max_new_tokens": 41}},
        {"generation": {"do_sample": False}},
        {"generation": {"temperature": 0.5}},
        {"generation": {"top_k": 2}},
        {"generation": {"top_p": 0.3}},
        {"generation": {"guidance_scale": 1.0}},
        {"generation": {"guidance_scale": 6.0}},
        {"generation": {"num_return_sequences": 2}},
    ],
    ids=str,
)
def test_every_argument_changes_the_output(
    run: Run, tiny: dict[str, ModelRef], change: dict[str, Any]
) -> None:
    """Of an untrained model: one that has learned is too sure of itself to heed each of them."""
    model = tiny["musicgen"]
    assert digests(run(model=model, **change)) != digests(run(model=model))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "auto"},
        {"dtype": "float32"},
        {"dtype": None},
        {"quantize_bits": None},
        {"generation": {"num_return_sequences": 1}},
        {"generation": {"num_return_sequences": None}},
        {"generation": {"do_sample": None, "temperature": None, "top_k": None, "top_p": None}},
        {"generation": {"guidance_scale": None}},
        {"generation": {"do_sample": True, "temperature": 1.0, "top_k": 50}},
        {"generation": {"guidance_scale": 3.0, "top_p": 1.0}},
    ],
    ids=str,
)
def test_null_and_left_out_are_the_models_own(
    run: Run, tiny: dict[str, ModelRef], change: dict[str, Any]
) -> None:
    model = tiny["musicgen"]
    assert digests(run(model=model, **change)) == digests(run(model=model))


@pytest.mark.parametrize("args", [{"generation_config": None}, {"generation_config": {}}, {}])
def test_without_generation_config_the_length_is_the_models_own(
    execute: Run, tiny: dict[str, ModelRef], args: dict[str, object]
) -> None:
    assert outputs(execute(tiny["musicgen"], **args))[0]["frames"] == 37 * 320


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "top_k": 5}, {"do_sample": False}])
def test_temperature_zero_is_greedy(run: Run, sampling: dict[str, object]) -> None:
    greedy = digests(run(generation={"do_sample": False}))
    assert digests(run(generation={"temperature": 0, **sampling})) == greedy
    assert digests(run(seed=99, generation={"temperature": 0.0, **sampling})) == greedy


def test_sequences_are_single_generations_with_derived_seeds(run: Run) -> None:
    three = run(seed=11, generation={"num_return_sequences": 3})
    seeds = sequence_seeds(11, 3)
    singles = [digests(run(seed=seed))[0] for seed in seeds]
    assert digests(three) == singles
    assert len(set(singles)) == 3


def test_trace_has_runtime_weights_and_tokens(
    run: Run, ready: WorkerStatus, embedded: ModelRef
) -> None:
    trace = run(generation={"max_new_tokens": 66, "num_return_sequences": 2}).trace
    assert trace["runtime"] == ready.runtime
    assert trace["weights"] == embedded.digest
    assert isinstance(trace["seconds"], float)
    tokens: Any = trace["tokens"]
    assert [len(blocks) for blocks in tokens] == [2, 2]  # 64 + 2 steps, of each sequence
    assert tokens[0] != tokens[1]


def test_trace_shows_where_two_runs_differ(run: Run) -> None:
    """A change late in the generation leaves the blocks before it equal."""
    short: Any = run(generation={"max_new_tokens": 70}).trace["tokens"]
    long: Any = run(generation={"max_new_tokens": 80}).trace["tokens"]
    assert short[0][0] == long[0][0]
    assert short[0][1] != long[0][1]


def test_trace_is_cut_to_its_limit() -> None:
    blocks = [[f"{place:016x}" for place in range(1024)] for _ in range(16)]
    bounded = bounded_trace({"tokens": blocks, "steps": [], "seconds": 1.0})
    assert 4_096 < len(rfc8785.dumps(bounded)) <= 8_192
    assert bounded["tokens_complete"] is False
    assert bounded["tokens"][3] == blocks[3][: len(bounded["tokens"][3])]
    small = {"tokens": [["a"]], "seconds": 1.0}
    assert bounded_trace(small) == small


def test_nan_weights_are_non_finite_output(run: Run, folders: Path) -> None:
    def poison(folder: Path) -> None:
        codebook = "audio_encoder.quantizer.layers.0.codebook.embed"
        reweighted(folder, codebook, lambda tensor: np.full_like(tensor, np.nan))

    execution = run(model=copied(folders, "nan", poison))
    assert execution.outcome == {"error": "non-finite-output"}
    assert execution.files == ()
    assert execution.trace["weights"]


def test_what_transformers_refuses_is_an_outcome(run: Run, folders: Path) -> None:
    def beams(folder: Path) -> None:
        rewritten(folder / "generation_config.json", num_beams=2)

    execution = run(model=copied(folders, "beams", beams))
    assert execution.outcome == {"error": "generation-rejected"}
    assert execution.files == ()


def test_a_temperature_that_overflows_is_an_outcome(run: Run) -> None:
    execution = run(generation={"temperature": 1e-39})
    assert execution.outcome == {"error": "generation-rejected"}


def test_one_sequence_is_generated_whatever_the_models_own_number_is(
    run: Run, folders: Path
) -> None:
    """The number of outputs follows from the task alone (specification 8.2)."""

    def several(folder: Path) -> None:
        rewritten(folder / "generation_config.json", num_return_sequences=3)

    model = copied(folders, "several", several)
    assert digests(run(model=model)) == digests(run())
    assert len(digests(run(model=model, generation={"num_return_sequences": 2}))) == 2


def test_a_model_of_temperature_zero_is_greedy(run: Run, folders: Path) -> None:
    def cold(folder: Path) -> None:
        rewritten(folder / "generation_config.json", temperature=0.0)

    model = copied(folders, "cold", cold)
    greedy = digests(run(generation={"do_sample": False}))
    assert digests(run(model=model)) == greedy
    assert digests(run(model=model, generation={"do_sample": False})) == greedy
    models_temperature = json.loads((SHIPPED / EMBEDDED / "generation_config.json").read_text())[
        "temperature"
    ]
    assert (
        digests(run(model=model, generation={"temperature": models_temperature}))
        == digests(run())
        != greedy
    )


def test_missing_weights_are_refused(run: Run, folders: Path) -> None:
    def incomplete(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["decoder.lm_heads.0.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(Abstained, match=r"decoder\.lm_heads\.0\.weight") as caught:
        run(model=copied(folders, "incomplete", incomplete))
    assert caught.value.reason == "model-missing"


def test_weights_of_another_shape_are_refused(run: Run, folders: Path) -> None:
    def wider(folder: Path) -> None:
        head = "decoder.lm_heads.0.weight"
        reweighted(folder, head, lambda tensor: np.concatenate([tensor, tensor]))

    with pytest.raises(Abstained) as caught:
        run(model=copied(folders, "wider", wider))
    assert "size mismatch" in caught.value.detail or "mismatched" in caught.value.detail
    assert caught.value.reason == "model-missing"


def test_older_tensor_names_are_accepted(run: Run, folders: Path) -> None:
    def older(folder: Path) -> None:
        weights = {
            name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): tensor
            for name, tensor in load_file(folder / "model.safetensors").items()
        }
        positions = np.zeros((2048, 64), dtype=np.float32)
        weights["decoder.model.decoder.embed_positions.weights"] = positions
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert digests(run(model=copied(folders, "older", older))) == digests(run())


def test_two_channels(run: Run, folders: Path) -> None:
    """A stereo model: twice the codebooks, left and right decoded apart."""
    codebooks = range(4)

    def stereo(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["decoder"] |= {"audio_channels": 2, "num_codebooks": 8}
        (folder / "config.json").write_text(json.dumps(config))
        weights = load_file(folder / "model.safetensors")
        for name in ("decoder.lm_heads.{}.weight", "decoder.model.decoder.embed_tokens.{}.weight"):
            for book in codebooks:
                weights[name.format(book + 4)] = weights[name.format(book)][::-1].copy()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    model = copied(folders, "stereo", stereo)
    execution = run(model=model)
    (output,) = outputs(execution)
    assert (output["channels"], output["size"]) == (2, 8 * output["frames"])
    left, right = samples(execution).reshape(-1, 2).T
    assert len(left) == output["frames"] == 37 * 320
    assert np.abs(left - right).max() > 0.05
    assert digests(run(model=model)) == [output["sha256"]]


def test_surplus_weights_are_refused(run: Run, folders: Path) -> None:
    def surplus(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["surplus"] = np.zeros(3, dtype=np.float32)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(Abstained, match="surplus") as caught:
        run(model=copied(folders, "surplus", surplus))
    assert caught.value.reason == "model-missing"


@pytest.mark.parametrize("kind", ["another-kind", "pop2piano"])
def test_a_kind_without_executor_is_an_abstention(
    supervisor: WorkerSupervisor, embedded: ModelRef, kind: str
) -> None:
    import dataclasses

    unknown = dataclasses.replace(job(embedded, {"prompt": "x", "seed": 1}), kind=kind)
    with pytest.raises(Abstained, match=kind) as caught:
        supervisor.run(unknown, timeout=TIMEOUT, progress=lambda _: None)
    assert caught.value.reason == "model-missing"


def test_another_digest_is_an_abstention_and_the_worker_stays(
    supervisor: WorkerSupervisor, run: Run, embedded: ModelRef
) -> None:
    run(again=True)
    pid = supervisor.pid
    with pytest.raises(Abstained, match="not the listed") as caught:
        run(model=ModelRef(embedded.id, "1", "0" * 64))
    assert caught.value.reason == "model-missing"
    assert supervisor.pid == pid


@pytest.mark.parametrize(("dtype", "loads"), [("auto", 1), ("float32", 1), ("float16", 2)])
def test_model_is_not_reloaded_for_its_own_dtype(
    embedded: ModelRef, monkeypatch: pytest.MonkeyPatch, dtype: str, loads: int
) -> None:
    """Left out, null, "auto" and the name itself are one."""
    loaded: list[str] = []

    def load(folder: Path, dtype: str, *_: object) -> object:
        loaded.append(dtype)
        return object()

    monkeypatch.setattr(text_to_music, "load", load)
    monkeypatch.setattr(text_to_music, "sounds", lambda *_: [])
    here, there = Pipe()
    with here, there:
        runner = JobRunner(here, ModelFolders([]), TransformersBackend())
        for args in ({}, {"dtype": None}, {"dtype": dtype}):
            message = order(embedded.digest)
            message["args"] |= args
            assert isinstance(runner.run(message), JobDone)
    assert loaded == ["float32", "float16"][:loads]


def test_progress_is_reported_in_percent_steps_at_a_bounded_rate(
    embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]

    def sounds(_: object, args: dict[str, object], progress: Callable[[float], None]) -> list[Any]:
        for step in range(1, 1001):
            now[0] += 0.02 if args["seed"] == 1 else 0.001
            progress(step / 1000)
        return []

    monkeypatch.setattr(text_to_music, "load", lambda *_: None)
    monkeypatch.setattr(text_to_music, "sounds", sounds)
    reported: dict[int, list[float]] = {1: [], 2: []}
    here, there = Pipe()
    with here, there:
        runner = JobRunner(here, ModelFolders([]), TransformersBackend())
        for seed, shares in reported.items():
            message = order(embedded.digest)
            message["args"]["seed"] = seed
            with monkeypatch.context() as stopped:
                stopped.setattr(time, "monotonic", lambda: now[0])
                runner.run(message)
            while there.poll():
                shares.append(json.loads(there.recv_bytes())["share"])
    assert 90 < len(reported[1]) <= 101  # 20 s: the first step, then each percent
    assert 15 < len(reported[2]) <= 21  # 1 s: the first step, then every 50 ms, and the end
    assert [shares[0] for shares in reported.values()] == [0.001, 0.001]
    assert [shares[-1] for shares in reported.values()] == [1.0, 1.0]


def order(digest: str) -> dict[str, Any]:
    model = {"id": EMBEDDED, "revision": "1", "digest": digest}
    args = {"prompt": PROMPT, "seed": 1}
    return {
        "task_kind": "text-to-music",
        "model": model,
        "args": args,
        "inputs": [],
        "proves_work": False,
        "tokens": [],
        "name": "job",
        "seconds": 600.0,
    }


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_too_little_memory_is_an_abstention(
    error: Exception, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(text_to_music, "load", fail)
    here, there = Pipe()
    with here, there:
        answer = JobRunner(here, ModelFolders([]), TransformersBackend()).run(
            order(embedded.digest)
        )
    assert isinstance(answer, JobAbstained)
    assert answer.reason == "out-of-memory"


def answer_to_error(
    error: BaseException, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> JobDone | JobFailed | JobAbstained | JobDifferent:
    """Return what the runner answers when loading raises an error."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(text_to_music, "load", fail)
    here, there = Pipe()
    with here, there:
        return JobRunner(here, ModelFolders([]), TransformersBackend()).run(order(embedded.digest))


@pytest.mark.parametrize(
    "error", [RuntimeError("at 0x7f00aa11bb22"), KeyError("a"), BaseException("panic")], ids=repr
)
def test_error_of_a_library_is_to_be_confirmed(
    error: BaseException, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = answer_to_error(error, embedded, monkeypatch)
    assert isinstance(answer, JobFailed)
    assert answer.code == "generation-rejected"
    assert answer.error.startswith(f"{type(error).__name__}: ")
    assert "7f00" not in answer.error


@pytest.mark.parametrize(
    "error",
    [OSError("gone"), TimeoutError("late"), KeyboardInterrupt(), SystemExit(1)],
    ids=repr,
)
def test_error_of_this_machine_ends_the_worker(
    error: BaseException, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(type(error)):
        answer_to_error(error, embedded, monkeypatch)


def test_error_caused_by_one_of_this_machine_ends_the_worker(
    embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("cannot continue")
    error.__cause__ = OSError("gone")
    with pytest.raises(RuntimeError, match="cannot continue"):
        answer_to_error(error, embedded, monkeypatch)


@pytest.mark.parametrize("code", ["generation-rejected", "no-notes"])
def test_a_failure_is_an_outcome_with_its_code(
    code: ErrorCode, embedded: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TaskFailed(code)

    monkeypatch.setattr(text_to_music, "sounds", fail)
    monkeypatch.setattr(text_to_music, "load", lambda *_: None)
    here, there = Pipe()
    with here, there:
        answer = JobRunner(here, ModelFolders([]), TransformersBackend()).run(
            order(embedded.digest)
        )
    assert isinstance(answer, JobDone)
    assert answer.outcome == {"error": code}


# What a trace has room for


def traced(sequences: int, steps: int) -> dict[str, Any]:
    blocks = math.ceil(steps / 64)
    return {
        "tokens": [["0" * 16] * blocks for _ in range(sequences)],
        "steps": [["00" * 64] * blocks for _ in range(sequences)],
        "runtime": {"name": "x" * 1500},
    }


def test_trace_of_thirty_seconds_is_complete() -> None:
    trace = traced(1, 1503)
    assert bounded_trace(trace) == trace


def test_steps_are_left_out_before_blocks() -> None:
    trace = traced(4, 1503)
    cut = bounded_trace(trace)
    assert len(rfc8785.dumps(cut)) <= TRACE_LIMIT
    assert cut["tokens"] == trace["tokens"]
    assert [len(blocks) for blocks in cut["steps"]] == [6] * 4
    assert "tokens_complete" not in cut


def test_cut_digests_are_marked_incomplete() -> None:
    cut = bounded_trace(traced(16, 4000))
    assert len(rfc8785.dumps(cut)) <= TRACE_LIMIT
    assert not any(cut["steps"])
    assert [len(blocks) for blocks in cut["tokens"]] == [15] * 16
    assert cut["tokens_complete"] is False
