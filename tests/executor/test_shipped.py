"""The embedded model: what is shipped is what the script builds, and what the architecture says."""

import json
import subprocess
import sys
from pathlib import Path

from executor import profile
from executor.models import EMBEDDED, SHIPPED

FOLDER = SHIPPED / EMBEDDED
SCRIPT = SHIPPED.parent.parent / "scripts" / "build_embedded_model"


def test_the_script_builds_the_same_bytes(tmp_path: Path) -> None:
    target = tmp_path / "built"
    subprocess.run(
        [sys.executable, str(SCRIPT), str(target)],
        env=profile.child_environment(tmp_path),
        check=True,
        capture_output=True,
    )
    names = {path.name for path in FOLDER.iterdir()}
    assert {path.name for path in target.iterdir()} == names
    assert "model.safetensors" in names
    for name in names:
        assert (target / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000


def test_its_card_says_that_it_is_untrained() -> None:
    assert "untrained" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_it_is_a_musicgen_in_float32() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["MusicgenForConditionalGeneration"]
    assert config["dtype"] == "float32"
