"""Tiny models with changed files, each family: refused, failed alike or run, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from executor.determinism import profile
from tests.property import model_folders
from tests.support.tiny_models.built import built_models

# A folder takes a second of processor time, a thousand times as long as a message.
EXAMPLES = 300 if settings.get_current_profile_name() == "fuzz" else 5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The models; meanwhile new processes have the environment of a worker."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in profile.child_environment(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        yield built_models(tmp_path_factory) / "tiny"


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_changed_model_folder_is_refused_fails_or_runs(
    data: st.DataObject, tiny: Path, tmp_path: Path
) -> None:
    model = data.draw(st.sampled_from(sorted(tiny.iterdir())), label="model")
    changed = data.draw(model_folders.changes(model), label="changed files")
    model_folders.write(model, changed, tmp_path / "model")
    verdict, words = model_folders.verdict_of(tmp_path / "model")
    note(f"{model.name}: {verdict}: {words}")
    assert model_folders.problem(verdict, words, [*changed]) == ""
