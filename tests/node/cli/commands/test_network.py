import copy
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from executor.determinism.compute_class import KINDS, WorkerKind
from executor.errors import Abstained
from executor.job import Execution, Job
from executor.models.families import DTYPES, FAMILIES, MUSIC
from executor.models.folders import DEFAULTS, EMBEDDED, SHIPPED, weights_digest
from executor.worker.supervisor import WorkerSupervisor
from node.cli.commands.network import measure
from node.cli.commands.network.document import ModelSelection, model_entries
from node.cli.commands.network.limits import complete_limits
from protocol.model_limits import objection
from protocol.network import Network
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Abstention
from protocol.wire.signing import peer_of
from tests.node.cli.certified import keys
from tests.node.cli.conftest import Helium, LoadingWorker

PEERS = [peer_of(key) for key in keys(3)]

# No worker starts but where a test says so.
pytestmark = pytest.mark.usefixtures("loading")


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "runtime.json"
    path.write_text('{"device": "cpu", "threads": 1}')
    return path


@pytest.fixture
def created(helium: Helium, runtime: Path) -> Network:
    done = helium(
        *("network", "create", "n.json", "--class-from", runtime, "--name", "demo"),
        *("--model", EMBEDDED, "--member", f"{PEERS[0]}=alice", "--committee-size", 1),
    )
    assert done.exit_code == 0, done.stderr
    return Network.parse(Path("n.json").read_bytes())


def test_create_writes_the_canonical_document(created: Network) -> None:
    assert Path("n.json").read_bytes() == canonical(created.document)
    assert created.document["name"] == "demo"
    assert created.parameters.committee_size == 1
    assert created.parameters.committee_max == 7
    model = created.models[EMBEDDED]
    assert model.digest == weights_digest(SHIPPED / EMBEDDED)
    assert model.limits == {
        "max_new_tokens": 2048,
        "generation_config": list(MUSIC),
        "dtypes": list(DTYPES),
        "quantize_bits": [4, 8],
        "frame_rate": 50,
        "delay": 3,
        "num_return_sequences": 4,
        "prompt_characters": 4096,
        "output_seconds": 41,
    }
    assert created.roster[PEERS[0]].operator == "alice"
    assert created.classes == {"cpu": {"device": "cpu", "threads": 1}}


def test_create_without_a_model_lists_the_shipped_models(helium: Helium, runtime: Path) -> None:
    done = helium("network", "create", "n.json", "--class-from", runtime)
    assert done.exit_code == 0, done.stderr
    models = Network.parse(Path("n.json").read_bytes()).models
    assert {name: (model.digest, model.tasks) for name, model in models.items()} == {
        name: (weights_digest(SHIPPED / name), (task,))
        for name, task in zip(DEFAULTS, ("text-to-music", "pop2piano"), strict=True)
    }


@pytest.mark.parametrize(
    ("flags", "replay"), [((), True), (("--replay",), True), (("--no-replay",), None)]
)
def test_models_of_the_engine_are_listed_with_replay(
    flags: tuple[str, ...], replay: bool | None, helium: Helium, runtime: Path
) -> None:
    done = helium("network", "create", "n.json", "--class-from", runtime, *flags)
    assert done.exit_code == 0, done.stderr
    document: Any = json.loads(Path("n.json").read_bytes())
    assert [model.get("replay") for model in document["models"]] == [replay] * len(DEFAULTS)
    shown = helium("network", "show", "n.json").stdout
    assert shown.count(" replay\n") == len(DEFAULTS) * bool(replay)


def test_other_models_have_replay_only_if_told(tmp_path: Path) -> None:
    folder = tmp_path / "acme" / "speech"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "vits"}')
    save_file({"w": np.ones(1, np.float32)}, folder / "model.safetensors")
    for replay, expected in ((None, None), (False, None), (True, True)):
        selection = ModelSelection(["acme/speech"], [tmp_path], [], None, replay)
        (entry,) = model_entries(selection)
        assert entry.get("replay") is expected


def test_create_replaces_a_file_only_with_force(
    helium: Helium, created: Network, runtime: Path
) -> None:
    content = Path("n.json").read_bytes()
    again = ("network", "create", "n.json", "--class-from", runtime)
    done = helium(*again)
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert Path("n.json").read_bytes() == content
    assert helium(*again, "--force").exit_code == 0
    assert Path("n.json").read_bytes() != content


def test_show_prints_the_id_and_the_document(helium: Helium, created: Network) -> None:
    output = json.loads(helium("network", "show", "n.json", "--json").stdout)
    operators = {"cpu": 1}
    assert output == {"id": created.id, "document": created.document, "operators": operators}
    lines = helium("network", "show", "n.json").stdout
    assert created.id in lines
    assert PEERS[0] in lines


def test_show_prints_each_models_limits(helium: Helium, created: Network) -> None:
    document: Any = copy.deepcopy(dict(created.document))
    limits = {"max_new_tokens": 9, "generation_config": [], "odd": "\x9b[31m"}
    document["models"].append({**document["models"][0], "id": "acme/voice", "limits": limits})
    Path("n.json").write_bytes(canonical(document))
    lines = helium("network", "show", "n.json").stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if EMBEDDED in line)
    assert [line.strip() for line in lines[start + 1 : start + 10]] == [
        "delay 3",
        "dtypes float32, float16, bfloat16",
        "frame_rate 50",
        f"generation_config {', '.join(MUSIC)}",
        "max_new_tokens 2048",
        "num_return_sequences 4",
        "output_seconds 41",
        "prompt_characters 4096",
        "quantize_bits 4, 8",
    ]
    assert "acme/voice" in lines[start + 10]
    assert [line.strip() for line in lines[start + 11 : start + 14]] == [
        *("generation_config none", "max_new_tokens 9", 'odd "\\u009b[31m"')
    ]


def test_add_extends_the_document_and_reports_the_new_id(helium: Helium, created: Network) -> None:
    done = helium("network", "add", "n.json", "--member", PEERS[1], "--json")
    new = Network.parse(Path("n.json").read_bytes())
    assert list(new.roster) == PEERS[:2]
    assert new.roster[PEERS[1]].operator == PEERS[1]
    assert f"changed from {created.id} to {new.id}" in done.stderr
    printed = json.loads(done.stdout)
    assert (printed["id"], printed["previous"]) == (new.id, created.id)


def test_add_can_write_another_file(helium: Helium, created: Network) -> None:
    content = Path("n.json").read_bytes()
    limit = ("--limit", "max_new_tokens=9", "--model-attempt-seconds", 600)
    member = ("--member", PEERS[1])
    done = helium("network", "add", "n.json", *member, *limit, "-o", "m.json")
    assert done.exit_code == 0, done.stderr
    assert Path("n.json").read_bytes() == content
    assert len(Network.parse(Path("m.json").read_bytes()).roster) == 2
    assert helium("network", "add", "n.json", *member, "-o", "m.json").exit_code == 2


def test_a_model_on_disk_is_listed_with_its_limits(
    helium: Helium, created: Network, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "acme" / "small@2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "musicgen"}')
    save_file({"w": np.ones(1, np.float32)}, folder / "model.safetensors")
    done = helium(
        *("network", "add", "n.json", "--models-dir", "models", "--model", "acme/small@2"),
        *("--limit", "max_new_tokens=9", "--model-attempt-seconds", 600),
    )
    assert done.exit_code == 0, done.stderr
    model = Network.parse(Path("n.json").read_bytes()).models["acme/small"]
    assert model.revision == "2"
    assert model.digest == weights_digest(folder)
    assert (model.limits["max_new_tokens"], model.attempt_seconds) == (9, 600)
    assert "frame_rate" not in model.limits  # that config.json tells no codec


def test_a_model_without_generation_config_is_listed_so(
    helium: Helium, created: Network, worker: "FakeWorker", tmp_path: Path
) -> None:
    worker.reason = Abstention.OUT_OF_MEMORY
    folder = tmp_path / "models" / "acme" / "voice"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "fastspeech2_conformer"}')
    save_file({"w": np.ones(1, np.float32)}, folder / "model.safetensors")
    done = helium("network", "add", "n.json", "--models-dir", "models", "--model", "acme/voice")
    assert done.exit_code == 0, done.stderr
    limits = Network.parse(Path("n.json").read_bytes()).models["acme/voice"].limits
    assert limits == {
        "generation_config": [],
        "dtypes": ["float32"],
        "quantize_bits": [8],
        "prompt_characters": 1000,
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gets_limits_that_bound_its_longest_task(name: str) -> None:
    limits = complete_limits(["text-to-music"], FAMILIES[name].capabilities, {})
    takes = FAMILIES[name].honours
    assert ("num_return_sequences" in limits) == ("num_return_sequences" in takes)
    assert ("max_new_tokens" in limits) == ("max_new_tokens" in takes)
    assert limits["prompt_characters"] == (4096 if "max_new_tokens" in takes else 1000)
    over: Any = {"prompt": "x" * 4097, "seed": 1}
    assert "are over this model's limit" in objection(limits, over)


def test_a_model_of_covers_gets_limits_of_its_songs_and_flags_replace_them() -> None:
    composers: Document = {"composers": ["composer1"]}
    assert complete_limits(["pop2piano"], composers, {}) == {
        **composers,
        "max_new_tokens": 1500,
        "input_seconds": 600,
        "output_seconds": 660,
    }
    limits = complete_limits(["pop2piano"], composers, {"input_seconds": 90})
    assert (limits["input_seconds"], limits["output_seconds"]) == (90, 150)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--member", "nobody"], 'roster[0].peer: "nobody" is not allowed'),
        (["--member", f"{PEERS[0]}", "--member", PEERS[0]], "is listed twice"),
        (["--model", "acme/none"], "--model acme/none: "),
        (["--committee-size", "0"], "parameters.committee_size: 0 is not allowed"),
        (["--committee-size", "9"], "parameters.committee_max: is smaller"),
        (["--name", "no spaces"], 'name: "no spaces" is not allowed'),
        (["--model", EMBEDDED, "--limit", "x"], "--limit x: must be NAME=N"),
        (["--model", EMBEDDED, "--limit", "y=1"], "with a NAME of max_new_tokens, num_return_se"),
        (["--model", EMBEDDED, "--limit", "max_new_tokens=²"], "must be NAME=N"),
        (["--model", EMBEDDED, "--limit", "delay=1"], "--limit delay=1: must be NAME=N"),
        (["--model", EMBEDDED, "--limit", "max_new_tokens=0"], "models[0].limits.max_new_tokens"),
    ],
)
def test_an_error_is_named_and_nothing_is_written(
    helium: Helium, runtime: Path, arguments: list[str], reason: str
) -> None:
    done = helium("network", "create", "n.json", "--class-from", runtime, *arguments)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert not Path("n.json").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "duplicate member 'a'"),
        ("[1]", "classes.cpu"),
        ("{", "not JSON"),
        ('{"a": NaN}', "NaN is no JSON number"),
    ],
)
def test_a_malformed_class_file_is_named(
    helium: Helium, runtime: Path, text: str, reason: str
) -> None:
    runtime.write_text(text)
    done = helium("network", "create", "n.json", "--class-from", runtime)
    assert done.exit_code == 2
    assert reason in done.stderr


def test_adding_nothing_is_a_usage_error(helium: Helium, created: Network) -> None:
    assert helium("network", "add", "n.json").exit_code == 2


# Operators


@pytest.mark.parametrize(
    ("operators", "warning"),
    [
        ([], "class cpu has no member"),
        (["alice", "alice", "alice"], "class cpu has 1 operator, which alone decides every result"),
        (["alice", "bob", "alice"], "class cpu has 2 operators: both have to agree"),
        (["alice", "bob", "carol"], None),
    ],
)
def test_fewer_than_three_operators_are_warned_of(
    helium: Helium, runtime: Path, operators: list[str], warning: str | None
) -> None:
    members = [
        part
        for peer, operator in zip(PEERS, operators, strict=False)
        for part in ("--member", f"{peer}={operator}")
    ]
    arguments = ("network", "create", "n.json", "--class-from", runtime, "--attempt-seconds", 9)
    done = helium(*arguments, *members)
    assert done.exit_code == 0, done.stderr
    count = len(set(operators))
    assert f"members, {count} operator" in done.stdout
    assert done.stderr == "" if warning is None else f"WARNING: {warning}" in done.stderr
    assert f"{count} operator" in helium("network", "show", "n.json").stdout
    document = json.loads(helium("network", "show", "n.json", "--json").stdout)
    assert document["operators"] == {"cpu": count}


def test_add_warns_of_few_operators_too(helium: Helium, created: Network) -> None:
    done = helium("network", "add", "n.json", "--member", f"{PEERS[1]}=bob", "--json")
    assert json.loads(done.stdout)["operators"] == {"cpu": 2}
    assert "WARNING: class cpu has 2 operators" in done.stderr


# Several classes


def test_members_may_serve_several_classes(helium: Helium, runtime: Path) -> None:
    Path("gpu.json").write_text('{"device": "cuda"}')
    classes = ("--class", "cpu", "--class", "gpu")
    files = ("--class-from", runtime, "--class-from", "gpu.json")
    done = helium("network", "create", "n.json", *classes, *files, "--member", f"{PEERS[0]}=alice")
    assert done.exit_code == 0, done.stderr
    network = Network.parse(Path("n.json").read_bytes())
    assert network.classes == {"cpu": {"device": "cpu", "threads": 1}, "gpu": {"device": "cuda"}}
    assert network.roster[PEERS[0]].classes == ("cpu", "gpu")
    assert helium("network", "add", "n.json", "--member", PEERS[1]).exit_code == 2
    for peer, names in ((PEERS[1], ["gpu"]), (PEERS[2], ["gpu", "cpu"])):
        flags = [part for name in names for part in ("--class", name)]
        assert helium("network", "add", "n.json", "--member", peer, *flags).exit_code == 0
    network = Network.parse(Path("n.json").read_bytes())
    assert network.roster[PEERS[1]].classes == ("gpu",)
    assert network.roster[PEERS[2]].classes == ("gpu", "cpu")
    lines = helium("network", "show", "n.json").stdout.splitlines()
    assert f"member     {PEERS[2]} {PEERS[2]} gpu, cpu" in lines
    assert "operators  class cpu: 2 members, 2 operators" in lines
    assert "operators  class gpu: 3 members, 3 operators" in lines


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--class", "a", "--class", "a"), "a name is given twice"),
        (("--class", "a=cuda"), "'cuda' is none of music, piano, transformers"),
        (("--class", "music"), f"--model {DEFAULTS[1]}: no class of the network runs it"),
        (("--class", "a", "--class", "b", "--class-from", "runtime.json"), "one for each --class"),
        (("--class-from", "runtime.json", "--class-from", "runtime.json"), "one for each --class"),
    ],
)
def test_each_class_needs_its_definition(
    helium: Helium, runtime: Path, flags: tuple[str, ...], reason: str
) -> None:
    done = helium("network", "create", "n.json", *flags)
    assert done.exit_code == 2
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("flags", "classes"),
    [
        ((), ["music", "piano"]),
        (("--model", EMBEDDED), ["music"]),
        (("--no-replay",), ["transformers"]),
        (("--class", "cpu"), ["cpu=transformers"]),
        (("--class", "music", "--class", "b=piano"), ["music", "b=piano"]),
        (("--class", "cpu=transformers", "--class", "music"), ["cpu=transformers", "music"]),
    ],
)
def test_the_classes_are_those_given_or_those_that_the_models_need(
    helium: Helium, worker: "FakeWorker", flags: tuple[str, ...], classes: list[str]
) -> None:
    done = helium("network", "create", "n.json", *flags)
    assert done.exit_code == 0, done.stderr
    pairs = [text.partition("=") for text in classes]
    assert sorted(Network.parse(Path("n.json").read_bytes()).classes) == sorted(
        name for name, _, _ in pairs
    )
    assert worker.kinds == [KINDS[kind or name] for name, _, kind in pairs]
    # Each model ran in a worker that is for it.
    assert {job.model.id for job in worker.jobs} <= set(DEFAULTS)


# Measured attempts


class FakeWorker:
    """A worker whose jobs take a second for each 16 tokens or 30 seconds of a song."""

    def __init__(self, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scratch, self.now, self.jobs = scratch, 0.0, list[Job]()
        self.kinds: list[WorkerKind] = []
        self.reason: Abstention | None = None
        self.outcome: dict[str, object] = {"result": {}}
        monkeypatch.setattr(measure, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(measure, "local_worker", self.start)

    @contextmanager
    def start(
        self, folders: Sequence[Path], kind: WorkerKind
    ) -> Iterator[tuple["FakeWorker", Document]]:
        assert SHIPPED in folders
        self.kinds.append(kind)
        yield self, {"device": "cpu", "threads": 1}

    def run(self, job: Job, *, timeout: float, progress: object) -> Execution:
        self.jobs.append(job)
        if self.reason is not None:
            raise Abstained(self.reason, "as told")
        config: Any = job.args.get("generation_config", {})
        if job.task.startswith("load") and job.kind == "pop2piano":
            return Execution({"error": "generation-rejected"}, (), {})
        warm = len([j for j in self.jobs if j.model.id == job.model.id]) > 1
        frames = sum((path.stat().st_size - 44) / 44_100 for path in job.inputs)
        seconds = frames / 30 if job.inputs else config["max_new_tokens"] / 16
        self.now += seconds if warm else 1000  # the first one loads and compiles
        return Execution(self.outcome, (), {"detail": "no language"})


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    return FakeWorker(tmp_path / "scratch", monkeypatch)


def attempt_seconds(file: str = "n.json") -> dict[str, float | None]:
    models = Network.parse(Path(file).read_bytes()).models
    return {name: model.attempt_seconds for name, model in models.items()}


def test_attempts_last_five_times_the_longest_task(helium: Helium, worker: FakeWorker) -> None:
    done = helium("network", "create", "n.json")
    assert done.exit_code == 0, done.stderr
    music, piano = DEFAULTS
    # 256 tokens took 16 s, so 4 times 2048 take 512 s. 30 s of 600 s of songs took 1 s.
    assert attempt_seconds() == {music: 5 * 512, piano: None}
    assert Network.parse(Path("n.json").read_bytes()).parameters.attempt_seconds == 120
    assert f"measured {music}: 16.0 s, so 512.0 s for its longest text-to-music" in done.stderr
    assert f"measured {piano}: 1.0 s, so 20.0 s" in done.stderr
    assert "attempts last 120 s" in done.stderr
    assert not list(worker.scratch.iterdir())


@pytest.mark.parametrize("flag", ["--attempt-seconds", "--model-attempt-seconds"])
def test_a_given_time_is_taken_without_a_measurement(
    helium: Helium, worker: FakeWorker, flag: str
) -> None:
    done = helium("network", "create", "n.json", flag, 30)
    assert done.exit_code == 0, done.stderr
    assert [job.task for job in worker.jobs] == [f"load {name}" for name in DEFAULTS]
    network = Network.parse(Path("n.json").read_bytes())
    assert "measured" not in done.stderr.lower()
    assert network.parameters.attempt_seconds == (30 if flag == "--attempt-seconds" else 120)
    assert set(attempt_seconds().values()) == {None if flag == "--attempt-seconds" else 30}


def test_a_model_that_cannot_be_executed_is_not_measured(
    helium: Helium, worker: FakeWorker
) -> None:
    worker.reason = Abstention.OUT_OF_MEMORY
    done = helium("network", "create", "n.json", "--model", EMBEDDED)
    assert done.exit_code == 0, done.stderr
    assert f"NOT MEASURED: {EMBEDDED}: out-of-memory: as told" in done.stderr
    assert attempt_seconds() == {EMBEDDED: None}


# Every model is loaded


@pytest.mark.parametrize("reason", [Abstention.MODEL_MISSING, Abstention.WORKER_DIED])
@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--attempt-seconds", "30"),
        ("--model-attempt-seconds", "30"),
        ("--class-from", "runtime.json"),
        ("--class-from", "runtime.json", "--attempt-seconds", "30"),
    ],
    ids=" ".join,
)
def test_a_model_that_does_not_load_is_refused_whatever_is_measured(
    helium: Helium, worker: FakeWorker, runtime: Path, flags: tuple[str, ...], reason: Abstention
) -> None:
    worker.reason = reason
    done = helium("network", "create", "n.json", "--model", EMBEDDED, *flags)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"helium: --model {EMBEDDED}: as told"
    assert not Path("n.json").exists()


@pytest.mark.parametrize("flags", [(), ("--model-attempt-seconds", "30")], ids=" ".join)
@pytest.mark.parametrize("listed", ['{"device": "cpu", "threads": 1}', '{"device": "cuda"}'])
def test_an_added_model_that_does_not_load_leaves_the_document_as_it_was(
    helium: Helium, worker: FakeWorker, runtime: Path, listed: str, flags: tuple[str, ...]
) -> None:
    music, piano = DEFAULTS
    runtime.write_text(listed)
    helium("network", "create", "n.json", "--class-from", runtime, "--model", piano)
    content = Path("n.json").read_bytes()
    worker.reason = Abstention.MODEL_MISSING
    done = helium("network", "add", "n.json", "--model", music, *flags)
    assert done.exit_code == 2
    assert f"--model {music}: as told" in done.stderr
    assert Path("n.json").read_bytes() == content


def test_a_model_that_this_machine_is_too_small_for_is_listed_with_a_warning(
    helium: Helium, worker: FakeWorker
) -> None:
    worker.reason = Abstention.OUT_OF_MEMORY
    done = helium("network", "create", "n.json", "--model", EMBEDDED, "--attempt-seconds", 30)
    assert done.exit_code == 0, done.stderr
    assert f"NOT LOADED: {EMBEDDED}: out-of-memory: as told" in done.stderr


def test_a_model_that_loads_and_fails_a_short_task_is_listed_with_a_warning(
    helium: Helium, worker: FakeWorker
) -> None:
    worker.outcome = {"error": "generation-rejected"}
    done = helium("network", "create", "n.json", "--model", EMBEDDED, "--attempt-seconds", 30)
    assert done.exit_code == 0, done.stderr
    assert (
        f"WARNING: {EMBEDDED} loads, but a short task with the prompt 'warm up' fails: "
        "generation-rejected: no language"
    ) in done.stderr


def test_weights_that_hold_nan_are_refused(helium: Helium, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "acme" / "nan"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "vits"}')
    save_file({"w": np.full(1, np.nan, np.float32)}, folder / "model.safetensors")
    done = helium("network", "create", "n.json", "--models-dir", "models", "--model", "acme/nan")
    assert done.exit_code == 2
    assert "--model acme/nan: NaN in model.safetensors: w: every task would fail" in done.stderr


def test_members_alone_are_added_without_a_worker(
    helium: Helium, created: Network, loading: LoadingWorker
) -> None:
    loading.jobs.clear()
    assert helium("network", "add", "n.json", "--member", PEERS[1]).exit_code == 0
    assert loading.jobs == []


Fault = Callable[[Path], None]


def changed(file: str, **members: object) -> Fault:
    def fault(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | members))

    return fault


def without(file: str) -> Fault:
    return lambda folder: (folder / file).unlink()


def narrow(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    head = "decoder.lm_heads.0.weight"
    save_file(weights | {head: weights[head][1:]}, folder / "model.safetensors", {"format": "pt"})


# What only loading shows: the words begin with the file.
FAULTS: dict[str, tuple[Fault, str]] = {
    "layers": (changed("config.json", decoder={"num_hidden_layers": "two"}), "config.json"),
    "shape": (narrow, "the weights do not fit config.json: mismatched_keys: "),
    "tokenizer": (changed("tokenizer.json", model={"type": "Odd"}), "tokenizer.json or "),
    "no-tokenizer": (without("tokenizer.json"), "tokenizer_config.json"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, (fault, _) in FAULTS.items():
        shutil.copytree(SHIPPED / EMBEDDED, folder / "odd" / name)
        fault(folder / "odd" / name)
    return folder


@pytest.fixture(scope="module")
def real_worker(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerSupervisor, Document]]:
    supervisor = WorkerSupervisor([models], tmp_path_factory.mktemp("scratch"))
    status: Any = supervisor.start(300.0)
    yield supervisor, status.runtime
    supervisor.close()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_only_loading_shows_is_refused_with_its_file(
    helium: Helium,
    real_worker: tuple[WorkerSupervisor, Document],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """With a real worker, and a valid model before the faulty one."""
    monkeypatch.setattr(measure, "local_worker", lambda folders, kind: nullcontext(real_worker))
    done = helium(
        *("network", "create", "n.json", "--attempt-seconds", "30", "--models-dir", models),
        *("--class", "transformers"),
        *("--model", DEFAULTS[1], "--model", f"odd/{name}"),
    )
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"helium: --model odd/{name}: {FAULTS[name][1]}"), line
    assert not Path("n.json").exists()
    assert real_worker[0].pid is not None


# Measured attempts, further


def test_the_class_of_another_machine_is_not_measured(helium: Helium, runtime: Path) -> None:
    done = helium("network", "create", "n.json", "--class-from", runtime)
    assert "NOT MEASURED: helium/embedded-music, helium/embedded-pop2piano: --class-from" in (
        done.stderr
    )
    assert "at least 5 times an execution" in done.stderr


@pytest.mark.parametrize("listed", ['{"device": "cpu", "threads": 1}', '{"device": "cuda"}'])
def test_added_models_are_measured_on_a_machine_of_the_class(
    helium: Helium, worker: FakeWorker, runtime: Path, listed: str
) -> None:
    music, piano = DEFAULTS
    runtime.write_text(listed)
    helium("network", "create", "n.json", "--class-from", runtime, "--model", piano)
    done = helium("network", "add", "n.json", "--model", music)
    assert done.exit_code == 0, done.stderr
    is_listed = "threads" in listed
    assert attempt_seconds() == {piano: None, music: 2560 if is_listed else None}
    assert ("this machine is of none of the network's classes" in done.stderr) is not is_listed
