"""`helium doctor` with worker statuses made here; the integration tests start real workers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from executor.determinism.compute_class import WorkerKind
from executor.engine.library import instruction_set
from executor.models.folders import DEFAULTS, EMBEDDED, SHIPPED, weights_digest
from executor.worker.backends.engine import default_threads
from executor.worker.process import error_first
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from node.cli.commands.doctor import command as doctor
from node.cli.commands.doctor.clock_report import HOW_TO
from protocol.wire.encoding import canonical
from tests.node.cli.conftest import Helium
from tests.support import fixtures

RUNTIME: dict[str, object] = {"device": "cpu", "torch": "2.13.0"}
SANDBOX = {"network": "seccomp", "files": "not in force: this kernel has no landlock"}
READY = WorkerStatus(RUNTIME, True, "", 1.5, SANDBOX)


pytestmark = pytest.mark.usefixtures("loading")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the worker: it reports the status that the fixture is called with."""

    def report(status: WorkerStatus) -> None:
        monkeypatch.setattr(doctor, "start_worker", lambda folders, kind: status)

    report(READY)
    return report


def run_doctor(helium: Helium, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = helium("doctor", "--json", *arguments)
    return done.exit_code, json.loads(done.stdout)


def network(helium: Helium, **runtime: object) -> Path:
    Path("runtime.json").write_text(json.dumps(runtime))
    path = Path("network.json")
    arguments = ("network", "create", path, "--class-from", "runtime.json", "--model", EMBEDDED)
    done = helium(*arguments, "--force")
    assert done.exit_code == 0, done.stderr
    return path


def test_a_worker_is_started_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    class Fake(WorkerSupervisor):
        def start(self, timeout: float) -> WorkerStatus:
            calls.append((self._folders, self._kind.device))
            return READY

        def close(self) -> None:
            calls.append("closed")

    monkeypatch.setattr("executor.worker.supervisor.WorkerSupervisor", Fake)
    assert doctor.start_worker([SHIPPED], WorkerKind(device="cuda")) == READY
    assert calls == [((SHIPPED,), "cuda"), "closed"]


def test_a_machine_that_can_serve(helium: Helium, worker: Any) -> None:
    code, document = run_doctor(helium)
    assert (code, document["ready"], document["reasons"]) == (0, True, [])
    assert [worker["kind"] for worker in document["workers"]] == ["music", "transformers"]
    music, transformers = document["workers"]
    assert (music["self_test"], music["runtime"], music["sandbox"]) == (True, RUNTIME, SANDBOX)
    assert (music["instruction_set"], music["threads"]) == (instruction_set(), default_threads())
    assert [transformers[name] for name in ("instruction_set", "threads", "reason")] == [None] * 3
    assert [model["id"] for model in document["models"]] == [*DEFAULTS]
    assert document["models"][0]["digest"] == weights_digest(SHIPPED / EMBEDDED)
    assert (document["classes"], document["listed"]) == ({}, {})


def test_lines_show_all_findings(helium: Helium, worker: Any) -> None:
    done = helium("doctor")
    assert done.exit_code == 0
    engine = f"{instruction_set()}, threads {default_threads()}"
    assert done.stdout.splitlines()[:5] == [
        f"worker    music: self-test passed, 1.5 s, {engine}",
        "runtime   device cpu",
        "runtime   torch 2.13.0",
        "sandbox   network: seccomp",
        "sandbox   files: not in force: this kernel has no landlock",
    ]
    assert f"model     {EMBEDDED} {weights_digest(SHIPPED / EMBEDDED)}" in done.stdout
    assert "worker    transformers: self-test passed, 1.5 s" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-2:] == [
        f"clock     unknown: {HOW_TO}",
        "ready",
    ]


def test_a_failed_self_test_is_not_ready(helium: Helium, worker: Any) -> None:
    worker(WorkerStatus({}, False, "self-test: warm differs from cold", 2.0))
    code, document = run_doctor(helium)
    assert (code, document["ready"]) == (1, False)
    assert [worker["self_test"] for worker in document["workers"]] == [False, False]
    assert document["reasons"] == [
        f"worker {kind}: self-test: warm differs from cold" for kind in ("music", "transformers")
    ]
    assert helium("doctor").stdout.splitlines()[-1] == (
        "not ready worker transformers: self-test: warm differs from cold"
    )


def test_of_a_worker_that_dies_only_the_error_is_shown(helium: Helium, worker: Any) -> None:
    traceback = 'Traceback (most recent call last):\n  File "a.py", line 1\nImportError: no numpy'
    worker(WorkerStatus({}, False, f"the worker died, exit code 1: {error_first(traceback)}", 2.0))
    _, document = run_doctor(helium)
    assert document["workers"][0]["reason"] == (
        "the worker died, exit code 1: ImportError: no numpy"
    )


def test_one_class_that_fits_is_enough(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of other kinds may fail: this machine need not serve their classes."""
    music = {"engine": "helium", "task": "text-to-music", "arithmetic": 1}

    def start(_: object, kind: WorkerKind) -> WorkerStatus:
        if kind.engine == "helium":
            return WorkerStatus(music, True, "", 0.5)
        return WorkerStatus({}, False, "no torch", 0.5)

    monkeypatch.setattr(doctor, "start_worker", start)
    document = fixtures.network_document()
    document["models"][0]["digest"] = weights_digest(SHIPPED / fixtures.MODEL)
    document["classes"] = {fixtures.CLASS: RUNTIME, "music": music}
    Path("network.json").write_bytes(canonical(document))
    code, found = run_doctor(helium, "--network", "network.json")
    assert (code, found["reasons"]) == (0, [])
    assert found["classes"] == {
        fixtures.CLASS: ["its worker does not start: no torch"],
        "music": [],
    }


def test_the_runtime_is_compared_with_the_class_field_by_field(helium: Helium, worker: Any) -> None:
    code, document = run_doctor(helium, "--network", network(helium, **RUNTIME))
    assert (code, document["classes"]) == (0, {"cpu": []})
    network_file = network(helium, device="cpu", torch="2.12.0")
    code, document = run_doctor(helium, "--network", network_file)
    line = "torch: ours '2.13.0', theirs '2.12.0'"
    assert (code, document["classes"]) == (1, {"cpu": [line]})
    assert document["reasons"] == [f"runtime differs from class cpu: {line}"]


def test_a_missing_listed_model_is_not_ready(helium: Helium, worker: Any) -> None:
    folder = Path("models") / "org" / "name"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    Path("runtime.json").write_text(json.dumps(RUNTIME))
    helium(
        *("network", "create", "n.json", "--class-from", "runtime.json"),
        *("--model", "org/name", "--models-dir", "models"),
    )
    arguments = ("--network", "n.json", "--models-dir", "models")
    code, document = run_doctor(helium, *arguments)
    assert (code, document["listed"]) == (0, {"org/name@main": None})
    (folder / "generation_config.json").write_text("{}")
    code, document = run_doctor(helium, *arguments)
    assert code == 1
    assert "not the listed" in document["listed"]["org/name@main"]
    shutil.rmtree(folder)
    code, document = run_doctor(helium, *arguments)
    assert code == 1
    assert "in none of the model folders" in document["reasons"][0]


def test_refused_models_are_listed_with_the_reason(helium: Helium, worker: Any) -> None:
    folder = Path("models") / "org" / "name@v2"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    snapshot = Path("models") / "models--hub--music" / "snapshots" / "abc"
    shutil.copytree(SHIPPED / EMBEDDED, snapshot)
    code, document = run_doctor(helium, "--models-dir", "models")
    assert code == 0  # a refused model on disk does not prevent serving
    models = {(m["id"], m["revision"]): (m["digest"], m["refused"]) for m in document["models"]}
    assert models[("hub/music", "abc")] == (weights_digest(snapshot), None)
    assert models[("org/name", "v2")][0] is None
    assert "only pytorch_model.bin" in str(models[("org/name", "v2")][1])


def test_a_key_in_a_model_folder_is_not_ready(helium: Helium, worker: Any) -> None:
    Path("models").mkdir()
    for key, code in (("models/node.pem", 1), ("node.pem", 0)):
        assert helium("key", "new", key).exit_code == 0
        exit_code, document = run_doctor(helium, "--key", key, "--models-dir", "models")
        assert exit_code == code
        assert any("can be read by the worker" in r for r in document["reasons"]) == bool(code)


def test_a_data_folder_in_a_model_folder_is_not_ready(helium: Helium, worker: Any) -> None:
    """Its journal has the salts of votes that are not revealed yet."""
    Path("models/node").mkdir(parents=True)
    for models, code in (("models", 1), ("other", 0)):
        exit_code, document = run_doctor(
            helium, "--data-dir", "models/node", "--models-dir", models
        )
        assert exit_code == code
        readable = Path(models).absolute()
        risk = f"secret: {readable / 'node'} can be read by the worker, which reads {readable}"
        assert document["reasons"] == ([risk] if code else [])


def test_a_missing_network_document_is_a_usage_error(helium: Helium, worker: Any) -> None:
    done = helium("doctor", "--network", "absent.json")
    assert done.exit_code == 2
    assert "absent.json" in done.stderr
