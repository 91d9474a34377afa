"""Numba's compiled kernels, which Pop2Piano's beat tracking and resampling need.

Compiling takes 25 s, so the kernels are kept on disk. A worker must not write them: whoever took
one over could leave code for every worker after it. So a process of its own compiles them, which
reads nothing of strangers, and workers read them only (`use_compiled_only`).
"""

import os
from importlib import metadata
from pathlib import Path

# What decides whether kept kernels are still those that numba would compile.
LIBRARIES = ("numba", "llvmlite", "librosa", "resampy", "transformers")
# In the kernels' folder: written once all are there, with the versions of `LIBRARIES`.
STAMP = "compiled"
# Seconds of the song that all kernels are compiled for: any with beats will do.
SECONDS = 4


def versions() -> str:
    """Return the versions of the libraries, as a stamp holds them."""
    return " ".join(f"{name}-{metadata.version(name)}" for name in LIBRARIES)


def compiled(folder: Path) -> bool:
    """Return whether a folder holds the kernels of the installed libraries."""
    try:
        return (folder / STAMP).read_text() == versions()
    except (OSError, ValueError, metadata.PackageNotFoundError):
        return False


def mark_compiled(folder: Path) -> None:
    """Note that all kernels are in a folder. Raises OSError."""
    (folder / STAMP).write_text(versions())


def compile_all() -> None:
    """Compile every kernel into `NUMBA_CACHE_DIR`, by extracting the features of a song."""
    import numpy as np
    from transformers import Pop2PianoFeatureExtractor

    from executor.audio.decode import RATE

    time = np.arange(SECONDS * RATE) / RATE
    beats = np.exp(-60 * (time % 0.5)) * np.sin(2 * np.pi * 1000 * time)
    Pop2PianoFeatureExtractor()(audio=beats.astype(np.float32), sampling_rate=RATE)


def use_compiled_only() -> None:
    """Let numba read kept kernels and write none. Call it before numba is imported."""
    os.environ["NUMBA_CACHE_LOCATOR_CLASSES"] = "executor.tasks.numba_cache.locator.KernelLocator"
