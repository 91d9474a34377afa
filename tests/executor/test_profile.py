import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from executor import profile

FIX = "from executor import profile; profile.fix(); import torch, json, os;"


def child(home: Path, code: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = profile.child_environment(home) | changes
    return subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in environment.items() if value != "absent"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_of_ours_reaches_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_VERBOSE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("HF_TOKEN", "secret")
    environment = profile.child_environment(tmp_path)
    assert environment["OMP_NUM_THREADS"] == "1"
    known = {*profile.NUMERIC, *profile.QUIET, *profile.INHERITED}
    assert environment.keys() - known == {"HOME", "HF_HOME", "TMPDIR", "PYTHONPATH"}
    assert str(Path.home()) not in environment["HOME"]


def test_the_measured_profile() -> None:
    """The settings under which waveforms were equal across CPUs: each is a class's content."""
    assert dict(profile.NUMERIC) == {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_CBWR": "COMPATIBLE",
        "MKL_DYNAMIC": "FALSE",
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "PYTHONHASHSEED": "0",
        "TORCHDYNAMO_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_fixed_and_then_watched(tmp_path: Path) -> None:
    """The profile holds after `fix`, and each setting that is changed afterwards is told."""
    code = (
        FIX + "before = profile.violations();"
        "torch.set_num_threads(2); torch.backends.mkldnn.enabled = True;"
        "torch.use_deterministic_algorithms(True, warn_only=True);"
        "torch.set_float32_matmul_precision('medium'); torch.set_default_dtype(torch.float64);"
        "os.environ['MKL_CBWR'] = 'AVX2';"
        "print(json.dumps([before, profile.violations()]))"
    )
    ended = child(tmp_path, code)
    assert ended.returncode == 0, ended.stderr
    before, after = json.loads(ended.stdout)
    assert before == []
    assert after == [
        "MKL_CBWR is 'AVX2', not 'COMPATIBLE'",
        "threads: 2, not 1",
        "oneDNN: True, not False",
        "warn-only determinism: True, not False",
        "matrix product precision: medium, not highest",
        "default dtype: torch.float64, not torch.float32",
    ]


def test_what_was_set_too_late_is_told(tmp_path: Path) -> None:
    """ATen read its capability before: the variable set afterwards deceives nobody."""
    code = (
        "import torch, os; torch.backends.cpu.get_cpu_capability();"
        "os.environ['ATEN_CPU_CAPABILITY'] = 'avx2';" + FIX
    )
    ended = child(tmp_path, code, ATEN_CPU_CAPABILITY="default")
    assert ended.returncode == 1
    assert "ProfileViolated: CPU capability: DEFAULT, not AVX2" in ended.stderr


def test_a_missing_variable_is_refused(tmp_path: Path) -> None:
    ended = child(tmp_path, FIX, MKL_CBWR="absent")
    assert ended.returncode == 1
    assert "ProfileViolated: MKL_CBWR is None, not 'COMPATIBLE'" in ended.stderr


def test_our_own_process_is_not_under_the_profile() -> None:
    """So that the other tests of this module can fail."""
    assert any(os.environ.get(name) != value for name, value in profile.NUMERIC.items())
