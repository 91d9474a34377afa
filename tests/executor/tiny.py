"""The tiny models of each class, built once per test session, and how to run them."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from executor.job import Execution, ModelRef
from executor.models.folders import weights_digest
from executor.worker.supervisor import WorkerSupervisor
from tests.executor.conftest import TIMEOUT, job

ROOT = Path(__file__).resolve().parent.parent.parent
# The tiny models, by family; MusicGen has a stereo one besides.
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "musicgen": "musicgen",
        "musicgen_stereo": "musicgen",
        "musicgen_melody": "musicgen_melody",
        "bark": "bark",
        "csm": "csm",
        "seamless_m4t": "seamless_m4t",
        "seamless_m4t_v2": "seamless_m4t_v2",
        "speecht5": "speecht5",
        "vits": "vits",
        "fastspeech2_conformer": "fastspeech2_conformer",
        "fastspeech2_conformer_with_hifigan": "fastspeech2_conformer_with_hifigan",
    }
)
SPOKEN = "a slow sad piano"


def build(folders: Path) -> dict[str, ModelRef]:
    """Build all of them into a models folder, in a process of their own: it takes some 5 s."""
    script = ROOT / "scripts" / "build_tiny_models"
    subprocess.run(
        [sys.executable, str(script), *CLASSES, str(folders)],
        check=True,
        capture_output=True,
    )
    return {name: listed(folders, name) for name in CLASSES}


def listed(folders: Path, name: str) -> ModelRef:
    return ModelRef(f"tiny/{name}", "1", weights_digest(folders / "tiny" / name))


def execute(supervisor: WorkerSupervisor, model: ModelRef, **args: object) -> Execution:
    """Run one on a supervisor: seed 1 and nothing else set, unless `args` says otherwise."""
    full = {"prompt": SPOKEN, "seed": 1, **args}
    return supervisor.run(job(model, full), timeout=TIMEOUT, progress=lambda _: None)
