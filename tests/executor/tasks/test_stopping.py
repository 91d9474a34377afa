"""A generation stops between tokens or layers, and the model is as it was."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from executor.errors import Abstained
from executor.tasks import text_to_music
from protocol.wire.messages import Abstention
from tests.executor.conftest import CLASSES, PROMPT

# A pause between two calls is at most a few layers, of which the smallest tiny model has 20.
LEAST_CALLS = 20


class Stop:
    """A progress callback that counts its calls, and stops the generation at one of them."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.calls = at, 0

    def __call__(self, share: float) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Abstained(Abstention.TIMEOUT, "stopped")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker. Two threads on a busy machine take thirty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CLASSES)
def test_every_family_stops_anywhere_and_the_next_bytes_equal(built: Path, name: str) -> None:
    loaded = text_to_music.load(built / "tiny" / name, "float32", None)
    args = {"prompt": PROMPT, "seed": 1}

    def generate(stop: Stop) -> Sequence[bytes]:
        return [sound.audio.tobytes() for sound in text_to_music.sounds(loaded, args, stop)]

    whole = Stop()
    expected = generate(whole)
    assert whole.calls >= LEAST_CALLS
    for at in (1, whole.calls // 2, whole.calls - 1):
        with pytest.raises(Abstained, match="stopped"):
            generate(Stop(at))
        again = Stop()
        assert generate(again) == expected
        assert again.calls == whole.calls, "no hook is left behind"
