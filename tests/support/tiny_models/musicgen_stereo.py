"""MusicGen, stereo: eight codebooks, left and right in turn, decoded apart."""

from pathlib import Path

from tests.support.tiny_models import musicgen


def build(folder: Path) -> None:
    """Write the model to `folder`."""
    musicgen.build(folder, channels=2)
