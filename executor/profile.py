"""The numeric profile: every flag, seed and thread setting that decides bits, in this one place.

Two halves. `NUMERIC` is read by libraries when they are first imported, so it must stand in the
environment before the process starts. `fix` sets the rest, after torch is imported and before it
computes. What neither can reach, such as versions, is in `runtime`. Changing anything here makes
another compute class.

Measured: with this profile the waveforms of MusicGen, Bark, VITS and SpeechT5 are equal, bit for
bit, on AVX-512 hardware and on emulated Haswell, Skylake and EPYC; without it the instruction set
alone changes them. `MKL_CBWR=AVX2` and limits on oneDNN do not achieve that across vendors.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from executor.errors import ProfileViolated

NUMERIC: Mapping[str, str] = MappingProxyType(
    {
        # ATen's own kernels: AVX2 everywhere, whatever more the CPU has.
        "ATEN_CPU_CAPABILITY": "avx2",
        # MKL's matrix products: the one code path that all vendors share.
        "MKL_CBWR": "COMPATIBLE",
        "MKL_DYNAMIC": "FALSE",
        # One thread: sums are split by the number of threads.
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
        # numpy's BLAS and loops.
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        # The order of sets of strings.
        "PYTHONHASHSEED": "0",
        # Compiled kernels are cached without regard to the capability above; and there is no
        # accelerator in this class.
        "TORCHDYNAMO_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
)
# Decides no bits: no download, no telemetry, no progress bars, UTF-8.
QUIET: Mapping[str, str] = MappingProxyType(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
    }
)
# What the child takes over from its parent, where set: none of it reaches arithmetic.
INHERITED = ("PATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")

# Fixed rather than left to a default or to a model's configuration file. The key "" is for all
# other parts of a model, EnCodec among them, which knows nothing but "eager".
ATTENTION: Mapping[str, str] = MappingProxyType(
    {"": "eager", "text_encoder": "sdpa", "decoder": "sdpa"}
)
# quantize_bits 4: the only format of bitsandbytes that is named here, so that its default cannot
# move.
FOUR_BIT = "nf4"


def child_environment(home: Path) -> dict[str, str]:
    """The whole environment of a worker; `home` is a folder that is not the user's."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    places = {"HOME": str(home), "HF_HOME": str(home / "hub"), "TMPDIR": str(home)}
    package = Path(__file__).resolve().parent.parent
    return {**inherited, **places, "PYTHONPATH": str(package), **QUIET, **NUMERIC}


def fix() -> None:
    """Set what can only be set after `import torch`, then demand the whole profile.

    Once, before any arithmetic. Raises `ProfileViolated`.
    """
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(False)
    torch.backends.mkldnn.enabled = False
    torch.use_deterministic_algorithms(True)
    if found := violations():
        raise ProfileViolated("; ".join(found))


def violations() -> list[str]:
    """Where this process differs from the profile, one readable line each; empty if it holds."""
    import torch

    wrong = [
        f"{name} is {os.environ.get(name)!r}, not {value!r}"
        for name, value in NUMERIC.items()
        if os.environ.get(name) != value
    ]
    settings: tuple[tuple[str, object, object], ...] = (
        ("CPU capability", torch.backends.cpu.get_cpu_capability(), "AVX2"),
        ("threads", torch.get_num_threads(), 1),
        ("interop threads", torch.get_num_interop_threads(), 1),
        ("oneDNN", torch.backends.mkldnn.enabled, False),
        ("deterministic algorithms", torch.are_deterministic_algorithms_enabled(), True),
        ("warn-only determinism", torch.is_deterministic_algorithms_warn_only_enabled(), False),
        ("matrix product precision", torch.get_float32_matmul_precision(), "highest"),
        ("default dtype", torch.get_default_dtype(), torch.float32),
        ("autocast", torch.is_autocast_enabled("cpu"), False),
    )
    wrong += [f"{name}: {found}, not {due}" for name, found, due in settings if found != due]
    return wrong
