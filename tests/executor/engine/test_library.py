"""The engine's libraries: one for each instruction set, chosen by processor or by variable."""

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.determinism import profile
from executor.engine import library
from executor.errors import EngineUnavailable
from protocol import work

ROOT = Path(__file__).resolve().parents[3]
SETS = library.INSTRUCTION_SETS[platform.machine()]


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test choose anew, and without a variable of the user."""
    monkeypatch.delenv(library.VARIABLE, raising=False)
    yield
    library.load.cache_clear()
    library.instruction_set.cache_clear()


def _output(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_every_instruction_set_has_a_library() -> None:
    assert [name for name in SETS if not library.library_path(name).is_file()] == []


@pytest.mark.parametrize("name", library.supported_sets())
def test_library_names_its_instruction_set_and_arithmetic(name: str) -> None:
    loaded = library.open_library(name)
    assert loaded.he_instruction_set() == name.encode()
    assert loaded.he_arithmetic_version() == library.ARITHMETIC_VERSION


def test_fastest_supported_instruction_set_is_chosen() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    needed = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}  # abm is lzcnt
    wide = {f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl", "_vnni")}
    missing = 0
    if platform.machine() == "x86_64":
        missing = 2 if not needed <= set(flags) else 0 if wide <= set(flags) else 1
    assert library.supported_sets() == SETS[missing:]
    assert library.instruction_set() == library.supported_sets()[0]


def test_numeric_profile_hides_no_instruction_set() -> None:
    """The profile takes AVX2 from numpy; the engine's libraries have equal bits and keep it."""
    code = "from executor.engine import library; print(library.instruction_set())"
    environment = {"PYTHONPATH": str(ROOT), **profile.NUMERIC}
    assert _output(code, environment).strip() == library.instruction_set()


@pytest.mark.parametrize("name", library.supported_sets())
def test_variable_forces_an_instruction_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, name)
    assert library.instruction_set() == name
    assert library.load().he_instruction_set() == name.encode()


def test_unknown_instruction_set_is_refused_with_those_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(library.VARIABLE, "avx512")
    with pytest.raises(EngineUnavailable) as refusal:
        library.load()
    possible = " and ".join(library.supported_sets())
    assert str(refusal.value) == f"HELIUM_ENGINE_ISA is 'avx512'; this processor has {possible}"


def test_machine_without_an_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(EngineUnavailable, match="not written for riscv64, only for x86_64 and aar"):
        library.load()


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    with pytest.raises(EngineUnavailable) as refusal:
        library.load()
    missing = library.library_path(SETS[-1])
    assert str(refusal.value).startswith(f"{missing} is missing; scripts/setup")


def test_file_that_is_no_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    path = library.library_path(SETS[-1])
    path.write_bytes(b"not an object file")
    with pytest.raises(EngineUnavailable) as refusal:
        library.load()
    assert str(refusal.value).startswith(f"{path} does not load: ")


def test_library_of_another_arithmetic_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout whose C code was changed and not compiled must not compute."""
    monkeypatch.setattr(library, "ARITHMETIC_VERSION", library.ARITHMETIC_VERSION + 1)
    with pytest.raises(EngineUnavailable, match=r"arithmetic 1, not for .* with 2"):
        library.load()


def test_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its structures may be others: a call would end the process."""
    monkeypatch.setattr(library, "sources_hash", lambda: "0" * 64)
    with pytest.raises(EngineUnavailable, match="is of other C files; scripts/setup"):
        library.load()


def test_library_tells_the_hash_of_its_sources() -> None:
    loaded = library.load()
    assert loaded.he_sources().decode() == library.sources_hash() != ""


def test_library_is_loaded_once() -> None:
    assert isinstance(library.load(), ctypes.CDLL)
    assert library.load() is library.load()


def test_help_loads_no_library() -> None:
    code = """
from click.testing import CliRunner
from node.cli.main import cli
assert CliRunner().invoke(cli, ["--help"]).exit_code == 0
print("helium_engine" in open("/proc/self/maps").read())
"""
    assert _output(code, {**os.environ, "PYTHONPATH": str(ROOT)}).strip() == "False"


def test_library_keeps_the_logits_of_as_many_steps_as_the_protocol() -> None:
    for steps in (*range(300), 1503, 65_536):
        assert library.kept_steps(steps) == len(work.kept_steps(steps))
