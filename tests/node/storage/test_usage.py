from pathlib import Path

import pytest

from node.storage.usage import USAGE, Usage, read_usage, write_usage

COST = Usage(1.5, 20.25, 3.125, 1_000_000, None, 7, 21)


def test_the_last_figures_are_read(tmp_path: Path) -> None:
    assert read_usage(tmp_path) is None
    write_usage(tmp_path, Usage(1.0, 2.0, 0.5, None, None, 0, 0))
    write_usage(tmp_path, COST)
    assert read_usage(tmp_path) == COST
    assert [file.name for file in tmp_path.iterdir()] == [USAGE]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"started": 1}', '{"other": 1}', "\\xff"])
def test_a_file_of_another_form_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / USAGE).write_text(text)
    assert read_usage(tmp_path) is None
