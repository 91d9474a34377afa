import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from executor.determinism import profile

FIX = "from executor.determinism import profile; profile.fix(); import torch, json, os;"


def child(home: Path, code: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = profile.child_environment(home) | changes
    return subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in environment.items() if value != "absent"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_parent_environment_does_not_reach_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKL_VERBOSE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("HF_TOKEN", "secret")
    environment = profile.child_environment(tmp_path)
    assert environment["OMP_NUM_THREADS"] == "1"
    expected = {*profile.NUMERIC, *profile.QUIET, *profile.INHERITED}
    assert environment.keys() - expected == {*profile.PLACES, "PYTHONPATH"}
    assert all(environment[place].startswith(str(tmp_path)) for place in profile.PLACES)
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
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "TORCHDYNAMO_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


# One process for three tests, as an import of torch takes seconds: an operation without a
# deterministic form before and after `fix`, a 4-bit layer, and each setting changed after `fix`.
FIXED = """
import json, os, warnings
import torch

warnings.simplefilter("ignore")

def put():
    try:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    except RuntimeError as error:
        return str(error)
    return ""

puts = [put()]
from executor.determinism import profile
profile.fix()
puts.append(put())
before = profile.violations()

profile.fix_quantization()
import bitsandbytes.functional as functional
import bitsandbytes.nn as nn
linear = nn.Linear4bit(128, 32, False, torch.float32, quant_type="nf4")
torch.manual_seed(0)
weight = torch.randn(32, 128)
linear.load_state_dict({"weight": weight})
linear = linear.to("cpu").eval()
x = torch.randn(1, 128)
product = linear(x)
restored = functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state)
four_bits = {
    "as restored": torch.equal(product, torch.nn.functional.linear(x, restored)),
    "error": (product - x @ weight.T).abs().max().item(),
}

torch.set_num_threads(2)
torch.backends.mkldnn.enabled = True
torch.use_deterministic_algorithms(True, warn_only=True)
torch.set_float32_matmul_precision("medium")
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(True)
torch.set_flush_denormal(True)
torch.utils.deterministic.fill_uninitialized_memory = False
os.environ["MKL_CBWR"] = "AVX2"
after = profile.violations()
print(json.dumps({"puts": puts, "before": before, "four bits": four_bits, "after": after}))
"""


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What `FIXED` reports."""
    ended = child(tmp_path_factory.mktemp("home"), FIXED)
    assert ended.returncode == 0, ended.stderr
    report: Mapping[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return report


def test_violations_report_each_setting_changed_after_fix(fixed: Mapping[str, Any]) -> None:
    assert fixed["before"] == []
    assert fixed["after"] == [
        "MKL_CBWR is 'AVX2', not 'COMPATIBLE'",
        "threads: 2, not 1",
        "oneDNN: True, not False",
        "warn-only determinism: True, not False",
        "filled memory: False, not True",
        "matrix product precision: medium, not highest",
        "default dtype: torch.float64, not torch.float32",
        "gradients: True, not False",
        "denormals flushed: True, not False",
    ]


def test_a_variable_set_too_late_does_not_count(tmp_path: Path) -> None:
    """The libraries are asked what they took, whatever the environment says by then.

    Each variable has another value when the process starts, and the profile's before `fix`.
    """
    wrong = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_CORETYPE": "Nehalem",
        "PYTHONHASHSEED": "random",
    }
    right = {name: profile.NUMERIC[name] for name in wrong}
    libraries = "import torch, numpy; torch.ones(64, 64) @ torch.ones(64, 64);"
    ended = child(tmp_path, libraries + f"import os; os.environ.update({right!r});" + FIX, **wrong)
    assert ended.returncode == 1
    for line in (
        "ProfileViolated: CPU capability: DEFAULT, not AVX2",
        "MKL branch: ",
        "numpy's BLAS: b'Nehalem', not b'Haswell'",
        "hash randomization: 1, not 0",
    ):
        assert line in ended.stderr
    assert not any(f"{name} is" in ended.stderr for name in wrong)


def test_a_missing_variable_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_CBWR", raising=False)
    assert "MKL_CBWR is None, not 'COMPATIBLE'" in profile.violations()


def test_an_operation_without_a_deterministic_form_raises(fixed: Mapping[str, Any]) -> None:
    """One that torch names in its documentation: it must not merely warn."""
    before, after = fixed["puts"]
    assert before == ""
    assert "put_ does not have a deterministic implementation" in after


def test_four_bits_are_multiplied_alike_on_every_cpu(fixed: Mapping[str, Any]) -> None:
    """Not by the kernel of AVX512-BF16: there and elsewhere as the weights, restored, by torch."""
    assert fixed["four bits"]["as restored"]
    assert 0 < fixed["four bits"]["error"] < 5


def test_the_gpus_half_needs_a_gpu_and_is_otherwise_complete(tmp_path: Path) -> None:
    """Here without one: everything else of the profile holds, and is watched."""
    environment = profile.child_environment(tmp_path, "cuda")
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert environment["NVIDIA_TF32_OVERRIDE"] == "0"
    assert environment["MKL_CBWR"] == "COMPATIBLE"
    code = (
        "from executor.determinism import profile; import torch, json\n"
        "torch.cuda.is_available = lambda: False\n"
        "torch.backends.cuda.matmul.allow_tf32 = True\n"
        "before = profile.cuda_settings()\n"
        "try: profile.fix('cuda')\n"
        "except profile.ProfileViolated as error: print(error)\n"
        "print(sum(found != due for _, found, due in before))"
    )
    output = child(tmp_path, code, **environment)
    assert output.stdout.splitlines()[0] == "GPU: False, not True", output.stderr
    assert int(output.stdout.splitlines()[1]) >= 5


def test_our_own_process_is_not_under_the_profile() -> None:
    """So that the other tests of this module can fail."""
    assert any(os.environ.get(name) != value for name, value in profile.NUMERIC.items())
