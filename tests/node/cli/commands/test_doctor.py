"""`helium doctor`: one real worker for the whole file, made-up ones for what goes wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from executor.models.folders import DEFAULTS, EMBEDDED, SHIPPED, weights_digest
from executor.worker.supervisor import WorkerStatus, WorkerSupervisor
from node.cli.commands import doctor
from tests.node.cli.conftest import Helium

RUNTIME: dict[str, object] = {"device": "cpu", "torch": "2.13.0"}
SANDBOX = {"network": "seccomp", "files": "not in force: this kernel has no landlock"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> WorkerStatus:
    supervisor = WorkerSupervisor([], tmp_path_factory.mktemp("scratch"))
    try:
        return supervisor.start(60.0)
    finally:
        supervisor.close()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the worker say this of itself."""

    def says(ready: WorkerStatus) -> None:
        monkeypatch.setattr(doctor, "start_worker", lambda folders, device: ready)

    says(WorkerStatus(RUNTIME, True, "", 1.5, SANDBOX))
    return says


def asked(helium: Helium, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = helium("doctor", "--json", *arguments)
    return done.exit_code, json.loads(done.stdout)


def network(helium: Helium, **runtime: object) -> Path:
    Path("runtime.json").write_text(json.dumps(runtime))
    path = Path("network.json")
    arguments = ("network", "create", path, "--class-from", "runtime.json", "--model", EMBEDDED)
    done = helium(*arguments, "--force")
    assert done.exit_code == 0, done.stderr
    return path


def test_a_real_worker_is_asked_and_ended(
    real: WorkerStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything here goes through `start_worker`; it is the supervisor's own word."""
    asked_of: list[object] = []

    class Fake(WorkerSupervisor):
        def start(self, timeout: float) -> WorkerStatus:
            asked_of.append((self._folders, self._device))
            return real

        def close(self) -> None:
            asked_of.append("closed")

    monkeypatch.setattr("executor.worker.supervisor.WorkerSupervisor", Fake)
    assert doctor.start_worker([SHIPPED], "cuda") == real
    assert asked_of == [((SHIPPED,), "cuda"), "closed"]


def test_a_machine_that_can_serve(helium: Helium, worker: Any, real: WorkerStatus) -> None:
    worker(real)
    code, document = asked(helium)
    assert (code, document["ready"], document["reasons"]) == (0, True, [])
    assert document["self_test"] is True
    assert document["runtime"] == real.runtime
    assert document["sandbox"] == dict(real.sandbox)
    assert [model["id"] for model in document["models"]] == [*DEFAULTS]
    assert document["models"][0]["digest"] == weights_digest(SHIPPED / EMBEDDED)
    assert (document["classes"], document["listed"]) == ({}, {})


def test_the_lines_say_all_of_it(helium: Helium, worker: Any) -> None:
    done = helium("doctor")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:4] == [
        "runtime   device cpu",
        "runtime   torch 2.13.0",
        "sandbox   network: seccomp",
        "sandbox   files: not in force: this kernel has no landlock",
    ]
    assert f"model     {EMBEDDED} {weights_digest(SHIPPED / EMBEDDED)}" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["worker    self-test passed, 1.5 s", "ready"]


def test_a_worker_that_fails_its_test(helium: Helium, worker: Any) -> None:
    worker(WorkerStatus({}, False, "self-test: warm differs from cold", 2.0))
    code, document = asked(helium)
    assert (code, document["ready"], document["self_test"]) == (1, False, False)
    assert document["reasons"] == ["worker: self-test: warm differs from cold"]
    assert helium("doctor").stdout.splitlines()[-1] == (
        "not ready worker: self-test: warm differs from cold"
    )


def test_the_networks_class_is_compared_field_by_field(helium: Helium, worker: Any) -> None:
    code, document = asked(helium, "--network", network(helium, **RUNTIME))
    assert (code, document["classes"]) == (0, {"cpu": []})
    other = network(helium, device="cpu", torch="2.12.0")
    code, document = asked(helium, "--network", other)
    line = "torch: ours '2.13.0', theirs '2.12.0'"
    assert (code, document["classes"]) == (1, {"cpu": [line]})
    assert document["reasons"] == [f"runtime differs from class cpu: {line}"]


def test_a_listed_model_that_is_not_here(helium: Helium, worker: Any) -> None:
    folder = Path("models") / "org" / "name"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    Path("runtime.json").write_text(json.dumps(RUNTIME))
    helium(
        *("network", "create", "n.json", "--class-from", "runtime.json"),
        *("--model", "org/name", "--models-dir", "models"),
    )
    here = ("--network", "n.json", "--models-dir", "models")
    code, document = asked(helium, *here)
    assert (code, document["listed"]) == (0, {"org/name@main": None})
    (folder / "generation_config.json").write_text("{}")
    code, document = asked(helium, *here)
    assert code == 1
    assert "not the listed" in document["listed"]["org/name@main"]
    shutil.rmtree(folder)
    code, document = asked(helium, *here)
    assert code == 1
    assert "in none of the model folders" in document["reasons"][0]


def test_what_is_found_and_refused_is_told(helium: Helium, worker: Any) -> None:
    folder = Path("models") / "org" / "name@v2"
    shutil.copytree(SHIPPED / EMBEDDED, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    snapshot = Path("models") / "models--hub--music" / "snapshots" / "abc"
    shutil.copytree(SHIPPED / EMBEDDED, snapshot)
    code, document = asked(helium, "--models-dir", "models")
    assert code == 0  # nobody has to be able to load everything that lies about
    found = {(m["id"], m["revision"]): (m["digest"], m["refused"]) for m in document["models"]}
    assert found[("hub/music", "abc")] == (weights_digest(snapshot), None)
    assert found[("org/name", "v2")][0] is None
    assert "only pytorch_model.bin" in str(found[("org/name", "v2")][1])


def test_a_key_that_the_worker_could_read(helium: Helium, worker: Any) -> None:
    Path("models").mkdir()
    for place, code in (("models/node.pem", 1), ("node.pem", 0)):
        assert helium("key", "new", place).exit_code == 0
        done, document = asked(helium, "--key", place, "--models-dir", "models")
        assert done == code
        assert any("can be read by the worker" in r for r in document["reasons"]) == bool(code)


def test_a_network_that_is_not_there_is_wrong_usage(helium: Helium, worker: Any) -> None:
    done = helium("doctor", "--network", "absent.json")
    assert done.exit_code == 2
    assert "absent.json" in done.stderr
