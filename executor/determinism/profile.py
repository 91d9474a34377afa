"""The numeric profile: every flag, seed and thread setting that decides bits, in one place.

It has two halves. Libraries read `NUMERIC`, or `CUDA_NUMERIC` for a GPU, when they are imported, so
it must be in the environment before the process starts. `fix` sets the rest, after torch is
imported and before it computes. What neither can set, such as versions, is in `compute_class`. A
change to anything here makes another compute class.

Measured: with this profile the waveforms of MusicGen, Bark, VITS and SpeechT5 are equal, bit for
bit, on AVX-512 hardware and on emulated Haswell, Skylake and EPYC; without it the instruction set
alone changes them. `MKL_CBWR=AVX2` and limits on oneDNN do not achieve that across vendors.

The half for a GPU follows the documentation of torch and cuBLAS. It is not tested on one yet.
"""

import ctypes
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from executor.errors import ProfileViolated

Device = Literal["cpu", "cuda"]
Setting = tuple[str, object, object]  # name, actual value, required value
MKL_COMPATIBLE = 3  # MKL_CBWR_COMPATIBLE of mkl_types.h

NUMERIC: Mapping[str, str] = MappingProxyType(
    {
        # ATen's kernels: AVX2 everywhere, whatever else the CPU has.
        "ATEN_CPU_CAPABILITY": "avx2",
        # MKL's matrix products: the only code path that all vendors share.
        "MKL_CBWR": "COMPATIBLE",
        "MKL_DYNAMIC": "FALSE",
        # One thread, because sums are split by the number of threads.
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
        # numpy's BLAS and loops.
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        # Numba compiles Pop2Piano's resampling: for a generic CPU, so the same code everywhere.
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_NUM_THREADS": "1",
        # The order of sets of strings.
        "PYTHONHASHSEED": "0",
        # The cache of compiled kernels ignores the capability above. This class has no accelerator.
        "TORCHDYNAMO_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
)
# With a GPU the CPU keeps its settings: tokenizers, resampling and random draws run there.
CUDA_NUMERIC: Mapping[str, str] = MappingProxyType(
    {
        **{name: value for name, value in NUMERIC.items() if name != "CUDA_VISIBLE_DEVICES"},
        # One device, always the same.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0",
        # Without it cuBLAS may sum in another order from call to call; eight buffers of 4 MiB.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # No library may compute float32 products in TF32.
        "NVIDIA_TF32_OVERRIDE": "0",
    }
)
# These decide no bits: no downloads, no telemetry, no progress bars, UTF-8.
QUIET: Mapping[str, str] = MappingProxyType(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUTF8": "1",
        # No programs: a worker cannot start one, and libraries then do not look for a compiler.
        "PATH": "",
        "LC_ALL": "C.UTF-8",
    }
)
# Variables that the worker inherits, where set. None of them decides bits: the engine's instruction
# sets all give the same.
INHERITED = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "HELIUM_ENGINE_ISA")
# Variables that name folders, relative to the worker's home, which it can read and not write.
# Numba's kernels are compiled by a process of its own (`tasks.numba_cache`) and kept between
# workers, because the first task of each would otherwise wait for the compiler.
PLACES: Mapping[str, str] = MappingProxyType(
    {
        "HOME": "",
        "TMPDIR": "",
        "HF_HOME": "hub",
        "NUMBA_CACHE_DIR": "numba",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
    }
)

# Fixed here, not by a default or a model's configuration file. The key "" is for all other parts of
# a model; one of them, EnCodec, has only "eager".
ATTENTION: Mapping[str, str] = MappingProxyType(
    {"": "eager", "text_encoder": "sdpa", "decoder": "sdpa"}
)
# quantize_bits 4: named, so that a changed default of bitsandbytes changes nothing.
FOUR_BIT = "nf4"
# How its products are computed: `fix_quantization`.
FOUR_BIT_PRODUCTS = "restored"


def numeric(device: Device) -> Mapping[str, str]:
    """Return the half of the profile that is in the environment."""
    return CUDA_NUMERIC if device == "cuda" else NUMERIC


def child_environment(home: Path, device: Device = "cpu") -> dict[str, str]:
    """Return the whole environment of a worker; `home` is a folder that is not the user's."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    places = {name: str(home / folder) for name, folder in PLACES.items()}
    root = Path(__file__).resolve().parents[2]
    return {**inherited, **places, "PYTHONPATH": str(root), **QUIET, **numeric(device)}


def fix(device: Device = "cpu") -> None:
    """Set what can only be set after `import torch`, then check the whole profile.

    Call it once, before any arithmetic. Raises `ProfileViolated`.
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
    if device == "cuda":
        fix_cuda()
    if problems := violations(device):
        raise ProfileViolated("; ".join(problems))


def fix_cuda() -> None:
    """Set what decides bits on a GPU: full products, no kernels chosen by timing, one attention."""
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    products.allow_tf32 = convolutions.allow_tf32 = False
    products.allow_fp16_reduced_precision_reduction = False
    products.allow_bf16_reduced_precision_reduction = False
    convolutions.benchmark, convolutions.deterministic = False, True
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_math_sdp(True)


def fix_quantization() -> None:
    """Restrict bitsandbytes to arithmetic that is the same on every CPU of the class.

    On a CPU with AVX512-BF16 it multiplies 4-bit weights with its own kernel, in bfloat16.
    Elsewhere it restores the weights, which is exact, and torch multiplies. Call it before a
    quantised model is loaded; it may be called again.
    """
    modules: Any = importlib.import_module("bitsandbytes.nn.modules")
    modules.has_avx512bf16 = lambda: False


def violations(device: Device = "cpu") -> list[str]:
    """Return where this process differs from the profile, one line each; [] if it holds."""
    problems = environment_violations(device)
    if missing := missing_instructions():
        return [*problems, missing]  # the checks below compute, which may crash without them
    settings = [*torch_settings(), *library_settings()]
    settings += cuda_settings() if device == "cuda" else []
    return problems + different(settings)


def check_numpy() -> None:
    """Check the part of the profile that numpy computes under. Raises `ProfileViolated`."""
    problems = environment_violations("cpu")
    if missing := missing_instructions():
        problems.append(missing)
    else:
        problems += different(numpy_settings())
    if problems:
        raise ProfileViolated("; ".join(problems))


def environment_violations(device: Device) -> list[str]:
    """Return where the environment differs from the profile, one line each."""
    return [
        f"{name} is {os.environ.get(name)!r}, not {value!r}"
        for name, value in numeric(device).items()
        if os.environ.get(name) != value
    ]


def different(settings: Sequence[Setting]) -> list[str]:
    """Return which settings do not have the required value, one line each."""
    return [
        f"{name}: {actual}, not {required}"
        for name, actual, required in settings
        if actual != required
    ]


def missing_instructions() -> str:
    """Return which instructions of the profile's kernels this CPU lacks; "" if none."""
    features = cpu_features()
    missing = [name for name in ("AVX2", "FMA3", "F16C") if not features[name]]
    return f"this CPU has no {', no '.join(missing)}" if missing else ""


def cpu_features() -> Mapping[str, bool]:
    """Return the instruction sets by name: whether numpy found them and did not disable them."""
    core = importlib.import_module("numpy._core._multiarray_umath")  # has no types
    features: Mapping[str, bool] = core.__cpu_features__
    return features


def torch_settings() -> list[Setting]:
    """Return the settings that torch reports."""
    import torch

    tiny = torch.tensor(2.0**-126, dtype=torch.float32)  # the smallest normal number
    return [
        ("CPU capability", torch.backends.cpu.get_cpu_capability(), "AVX2"),
        ("threads", torch.get_num_threads(), 1),
        ("interop threads", torch.get_num_interop_threads(), 1),
        ("oneDNN", torch.backends.mkldnn.enabled, False),
        ("deterministic algorithms", torch.are_deterministic_algorithms_enabled(), True),
        ("warn-only determinism", torch.is_deterministic_algorithms_warn_only_enabled(), False),
        ("filled memory", torch.utils.deterministic.fill_uninitialized_memory, True),
        ("matrix product precision", torch.get_float32_matmul_precision(), "highest"),
        ("default dtype", torch.get_default_dtype(), torch.float32),
        ("autocast", torch.is_autocast_enabled("cpu"), False),
        ("gradients", torch.is_grad_enabled(), False),
        ("denormals flushed", bool(tiny / 2 == 0), False),
    ]


def library_settings() -> list[Setting]:
    """Return the settings of other libraries, to see that they took the environment's values."""
    import torch

    mkl = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    branch = call_library(mkl, "mkl_serv_cbwr_get", ctypes.c_int, 1)
    return [("MKL branch", branch, MKL_COMPATIBLE), *numpy_settings()]


def numpy_settings() -> list[Setting]:
    """Return the settings of numpy and of the interpreter."""
    import numpy

    features = cpu_features()
    wide = [name for name in numeric("cpu")["NPY_DISABLE_CPU_FEATURES"].split() if features[name]]
    blas = next((Path(numpy.__file__).parent.parent / "numpy.libs").glob("*openblas*.so"), None)
    core = call_library(blas, "scipy_openblas_get_corename64_", ctypes.c_char_p)
    return [
        ("numpy's BLAS", core, b"Haswell"),
        ("numpy's wide instructions", wide, []),
        ("hash randomization", sys.flags.hash_randomization, 0),
    ]


def call_library(library: Path | None, function: str, kind: type, *arguments: int) -> object:
    """Return the result of a loaded library's function; "unknown" if there is none."""
    try:
        symbol = ctypes.CDLL(str(library))[function]
    except (OSError, AttributeError):
        return "unknown"
    symbol.restype = kind
    return symbol(*arguments)


def cuda_settings() -> list[Setting]:
    """Return the settings that torch reports for the GPU."""
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    return [
        ("GPU", torch.cuda.is_available(), True),
        ("TF32 in products", products.allow_tf32, False),
        ("TF32 in convolutions", convolutions.allow_tf32, False),
        ("float16 sums", products.allow_fp16_reduced_precision_reduction, False),
        ("bfloat16 sums", products.allow_bf16_reduced_precision_reduction, False),
        ("cuDNN chosen by timing", convolutions.benchmark, False),
        ("cuDNN deterministic", convolutions.deterministic, True),
        ("flash attention", torch.backends.cuda.flash_sdp_enabled(), False),
        ("memory-efficient attention", torch.backends.cuda.mem_efficient_sdp_enabled(), False),
        ("cuDNN attention", torch.backends.cuda.cudnn_sdp_enabled(), False),
        ("plain attention", torch.backends.cuda.math_sdp_enabled(), True),
        ("autocast on the GPU", torch.is_autocast_enabled("cuda"), False),
    ]
