"""Positions of every family: a task at its document's limits runs, and one over them is refused.

In this process and with few positions, because a worker for each case would take minutes.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from executor.errors import TaskFailed, with_task_failures
from executor.models.folders import describe_model
from executor.tasks import text_to_music
from executor.tasks.failures import describe_failure
from executor.tasks.load_model import LoadedPipeline
from node.cli.commands.network.limits import complete_limits
from protocol.model_limits import objection
from tests.executor.conftest import CLASSES, rewritten
from tests.executor.tasks.test_stopping import one_thread

__all__ = ["one_thread"]

POSITIONS = 48
# Of SpeechT5, whose tokens are characters and two more. It may speak ten steps for each.
TEXT_POSITIONS = 24
# Where the number of positions stands in config.json. Bark's is the size of a table of weights.
PLACES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "musicgen": ("decoder",),
        "musicgen_stereo": ("decoder",),
        "musicgen_melody": ("decoder",),
        "csm": (),
        "seamless_m4t": (),
        "seamless_m4t_v2": (),
    }
)
WITH_TOKENS = (*PLACES, "bark")
# Characters of a prompt that takes seconds where the sound has its length, or the text is attended.
LONG_PROMPT = 400
SENTENCE = "a slow sad piano "


@pytest.fixture(scope="module")
def models(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny models, with few positions."""
    folder = tmp_path_factory.mktemp("positions")
    for name in CLASSES:
        shutil.copytree(built / "tiny" / name, folder / name)
    for name, place in PLACES.items():
        path = folder / name / "config.json"
        config: dict[str, Any] = json.loads(path.read_text())
        part = config
        for member in place:
            part = part[member]
        part["max_position_embeddings"] = POSITIONS
        path.write_text(json.dumps(config))
    rewritten(folder / "speecht5" / "config.json", max_text_positions=TEXT_POSITIONS)
    return folder


@pytest.fixture(scope="module")
def loaded(models: Path) -> dict[str, LoadedPipeline]:
    """The models in memory, each loaded once."""
    return {}


class Bench:
    """A model and the limits that a document has for it."""

    def __init__(self, folder: Path, cache: dict[str, LoadedPipeline]) -> None:
        description: Any = describe_model(folder)
        self.limits: dict[str, Any] = complete_limits(["text-to-music"], description["limits"], {})
        if folder.name not in cache:
            cache[folder.name] = text_to_music.load(folder, "float32", None)
        self._model = cache[folder.name]

    def args(self, characters: int, tokens: int | None = None) -> dict[str, Any]:
        prompt = (SENTENCE * (characters // len(SENTENCE) + 1))[:characters]
        config = {} if tokens is None else {"generation_config": {"max_new_tokens": tokens}}
        return {"prompt": prompt, "seed": 1, **config}

    def runs(self, args: dict[str, Any]) -> str:
        """Return "" if a task makes a sound; else what its error says. Nothing else is raised."""
        try:
            sounds = with_task_failures(
                lambda: text_to_music.sounds(self._model, args, lambda _: None),
                describe=describe_failure,
            )
        except TaskFailed as failed:
            return failed.detail
        assert sounds[0].audio.size
        return ""


@pytest.fixture
def bench(models: Path, loaded: dict[str, LoadedPipeline], name: str) -> Bench:
    return Bench(models / name, loaded)


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_as_many_tokens_as_positions_run_and_more_are_refused_with_numbers(
    bench: Bench, name: str
) -> None:
    limit = bench.limits["max_new_tokens"]
    assert limit == (224 if name == "bark" else POSITIONS)
    for characters in (16, LONG_PROMPT):
        task = bench.args(characters, limit)
        assert objection(bench.limits, task) == ""
        assert bench.runs(task) == ""
    assert objection(bench.limits, bench.args(16, limit + 1)) == (
        f"args.generation_config.max_new_tokens: {limit + 1} is over this model's limit, {limit}"
    )


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_more_tokens_than_positions_are_no_accident_under_a_wrong_limit(
    bench: Bench, name: str
) -> None:
    """Every member of a class computes the same, or meets the same error."""
    limit = bench.limits["max_new_tokens"]
    wrong = {**bench.limits, "max_new_tokens": 9_999, "output_seconds": 9_999}
    for tokens in (limit + 1, 2 * limit + 1):
        assert objection(wrong, bench.args(16, tokens)) == ""
        ends = [bench.runs(bench.args(16, tokens)) for _ in range(2)]
        assert ends[0] == ends[1]


@pytest.mark.parametrize("name", CLASSES)
def test_the_longest_prompt_runs_and_a_longer_one_is_refused_with_numbers(
    bench: Bench, name: str
) -> None:
    limit = bench.limits["prompt_characters"]
    tokens = 8 if name in WITH_TOKENS else None
    # Both have the same limit of 1,000, where the sound is as long as the prompt.
    longest = min(limit, LONG_PROMPT) if name.startswith("fastspeech2") else limit
    task = bench.args(longest, tokens)
    assert objection(bench.limits, task) == ""
    assert bench.runs(task) == ""
    assert objection(bench.limits, bench.args(limit + 1, tokens)) == (
        f"args.prompt: {limit + 1} characters are over this model's limit, {limit}"
    )


@pytest.mark.parametrize("name", ["speecht5"])
def test_a_longer_prompt_is_an_error_of_the_task_where_positions_end(
    bench: Bench, name: str
) -> None:
    over = bench.runs(bench.args(bench.limits["prompt_characters"] + 1))
    assert "choose a shorter prompt" in over
    assert bench.runs(bench.args(16)) == "", "the model is as it was"


def test_speech_longer_than_the_positions_for_it_is_an_error_of_the_task(
    models: Path, tmp_path: Path
) -> None:
    """How long it speaks, the model decides: no limit of a document can tell."""
    folder = shutil.copytree(models / "speecht5", tmp_path / "speecht5")
    rewritten(folder / "config.json", max_speech_positions=2)
    bench = Bench(folder, {})
    assert "choose a shorter prompt" in bench.runs(bench.args(bench.limits["prompt_characters"]))
