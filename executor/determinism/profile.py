"""The numeric profile: every flag, seed and thread setting that decides bits, in this one place.

Two halves. `NUMERIC`, or `CUDA_NUMERIC` for a GPU, is read by libraries when they are first
imported, so it must stand in the environment before the process starts. `fix` sets the rest, after
torch is imported and before it computes. What neither can reach, such as versions, is in `runtime`.
Changing anything here makes another compute class.

Measured: with this profile the waveforms of MusicGen, Bark, VITS and SpeechT5 are equal, bit for
bit, on AVX-512 hardware and on emulated Haswell, Skylake and EPYC; without it the instruction set
alone changes them. `MKL_CBWR=AVX2` and limits on oneDNN do not achieve that across vendors.

The half of a GPU follows the documentation of torch and cuBLAS. It has not been run on one yet.
"""

import ctypes
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from executor.errors import ProfileViolated

Device = Literal["cpu", "cuda"]
Setting = tuple[str, object, object]  # its name, what it is, what it has to be
MKL_COMPATIBLE = 3  # MKL_CBWR_COMPATIBLE of mkl_types.h

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
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        # What numba compiles, Pop2Piano's resampling: for the plainest CPU, so for none in
        # particular.
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_NUM_THREADS": "1",
        # The order of sets of strings.
        "PYTHONHASHSEED": "0",
        # Compiled kernels are cached without regard to the capability above; and there is no
        # accelerator in this class.
        "TORCHDYNAMO_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
)
# With a GPU the processor keeps its half: tokenizers, resampling and drawing happen there.
CUDA_NUMERIC: Mapping[str, str] = MappingProxyType(
    {
        **{name: value for name, value in NUMERIC.items() if name != "CUDA_VISIBLE_DEVICES"},
        # One device, always the same one.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0",
        # Without it cuBLAS may add up in another order from call to call; eight buffers of 4 MiB.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # Products of binary32 in 19 bits: never, whatever a library asks for.
        "NVIDIA_TF32_OVERRIDE": "0",
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
# Variables that name folders, by their place in the worker's own. What numba compiled is kept
# between workers, or the first task of each would wait ten seconds for the compiler; numba tells
# its kernels apart by version, source file and the CPU above.
PLACES: Mapping[str, str] = MappingProxyType(
    {"HOME": "", "TMPDIR": "", "HF_HOME": "hub", "NUMBA_CACHE_DIR": "numba"}
)

# Fixed rather than left to a default or to a model's configuration file. The key "" is for all
# other parts of a model, EnCodec among them, which knows nothing but "eager".
ATTENTION: Mapping[str, str] = MappingProxyType(
    {"": "eager", "text_encoder": "sdpa", "decoder": "sdpa"}
)
# quantize_bits 4: the only format of bitsandbytes that is named here, so that its default cannot
# move.
FOUR_BIT = "nf4"
# How its products are computed: `fix_quantization`.
FOUR_BIT_PRODUCTS = "restored"


def numeric(device: Device) -> Mapping[str, str]:
    """The half of the profile that stands in the environment."""
    return CUDA_NUMERIC if device == "cuda" else NUMERIC


def child_environment(home: Path, device: Device = "cpu") -> dict[str, str]:
    """The whole environment of a worker; `home` is a folder that is not the user's."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    places = {name: str(home / folder) for name, folder in PLACES.items()}
    package = Path(__file__).resolve().parent.parent.parent
    return {**inherited, **places, "PYTHONPATH": str(package), **QUIET, **numeric(device)}


def fix(device: Device = "cpu") -> None:
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
    if device == "cuda":
        fix_cuda()
    if found := violations(device):
        raise ProfileViolated("; ".join(found))


def fix_cuda() -> None:
    """Set what decides bits on a GPU: no shortened products, no choice by timing, one attention."""
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
    """Keep bitsandbytes to arithmetic that every CPU of the class does alike.

    Where a CPU has AVX512-BF16 it would multiply 4-bit weights by a kernel of its own, in bfloat16;
    everywhere else it restores the weights, which is exact, and leaves the product to torch.
    Before a quantised model is loaded; again does no harm.
    """
    modules: Any = importlib.import_module("bitsandbytes.nn.modules")
    modules.has_avx512bf16 = lambda: False


def violations(device: Device = "cpu") -> list[str]:
    """Where this process differs from the profile, one readable line each; empty if it holds."""
    wrong = [
        f"{name} is {os.environ.get(name)!r}, not {value!r}"
        for name, value in numeric(device).items()
        if os.environ.get(name) != value
    ]
    if lacking := instructions():
        return [*wrong, lacking]  # whatever computes now may crash
    settings = [*torch_settings(), *library_settings()]
    settings += cuda_settings() if device == "cuda" else []
    return wrong + [f"{name}: {found}, not {due}" for name, found, due in settings if found != due]


def instructions() -> str:
    """What the profile's kernels need and this CPU does not have; "" if it has all."""
    found = cpu_features()
    lacking = [name for name in ("AVX2", "FMA3", "F16C") if not found[name]]
    return f"this CPU has no {', no '.join(lacking)}" if lacking else ""


def cpu_features() -> Mapping[str, bool]:
    """The instructions that numpy found, and did not have disabled."""
    core = importlib.import_module("numpy._core._multiarray_umath")  # has no types
    found: Mapping[str, bool] = core.__cpu_features__
    return found


def torch_settings() -> list[Setting]:
    """What torch itself says that it computes with."""
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
    """What the libraries below say: whether they took what the environment told them."""
    import numpy
    import torch

    features = cpu_features()
    wide = [name for name in numeric("cpu")["NPY_DISABLE_CPU_FEATURES"].split() if features[name]]
    mkl = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    blas = next((Path(numpy.__file__).parent.parent / "numpy.libs").glob("*openblas*.so"), None)
    return [
        ("MKL branch", said(mkl, "mkl_serv_cbwr_get", ctypes.c_int, 1), MKL_COMPATIBLE),
        ("numpy's BLAS", said(blas, "scipy_openblas_get_corename64_", ctypes.c_char_p), b"Haswell"),
        ("numpy's wide instructions", wide, []),
        ("hash randomization", sys.flags.hash_randomization, 0),
    ]


def said(library: Path | None, function: str, kind: type, *arguments: int) -> object:
    """What a function of a loaded library returns; "unknown" if it is not there."""
    try:
        called = ctypes.CDLL(str(library))[function]
    except (OSError, AttributeError):
        return "unknown"
    called.restype = kind
    return called(*arguments)


def cuda_settings() -> list[Setting]:
    """What torch says of its GPU half."""
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
