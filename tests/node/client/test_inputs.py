"""Audio files of a caller: what is in them is said before anything is sent."""

from pathlib import Path
from typing import Any

import pytest

from node.client.arguments import InvalidArgument
from node.client.inputs import read_inputs
from protocol.errors import Rejected
from tests.support import fixtures
from tests.support.songs import wav

NET = fixtures.piano_network(max_input_bytes=100_000)


def refused(*files: Any) -> str:
    with pytest.raises(InvalidArgument) as raised:
        read_inputs(files, NET, fixtures.PIANO)
    return str(raised.value)


def test_an_input_says_what_will_be_sent(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(wav(44_100))
    for file in (path, str(path)):
        (song,) = read_inputs([file], NET, fixtures.PIANO)
        assert str(song) == "WAV, 44100 Hz, mono, 1.00 s, 44,144 bytes"
        assert song.reference["size"] == 44_144
        assert read_inputs([song], NET, fixtures.PIANO) == [song]
    (same,) = read_inputs([wav(44_100)], NET, fixtures.PIANO)
    assert same.content == song.content


def test_another_format_is_named_with_a_command_that_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "my song.mp3"
    path.write_bytes(b"ID3\4" + bytes(200))
    assert refused(path) == (
        f"{path}: neither WAV (PCM, float) nor FLAC, but MP3 (or another file behind an ID3 tag). "
        f"Convert it: ffmpeg -i '{path}' -ar 44100 -ac 2 -t 600 "
        f"'{tmp_path}/my song.converted.flac'"
    )


def test_what_is_no_audio_is_named_without_a_command(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    for content, name in ((b"", "empty"), (b"version https://git-lfs.x/", "git lfs pull")):
        path.write_bytes(content)
        assert name in refused(path)
        assert "ffmpeg" not in refused(path)
    assert "Is a directory" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "none")


def test_a_bad_rate_is_refused_with_a_command(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(wav(100, rate=1))
    assert "1 Hz; the sampling rate must be 4000 to 384000 Hz. Convert it" in refused(path)


@pytest.mark.parametrize("files", ["song.wav", Path("song.wav"), b"RIFF", None, 5])
def test_one_file_is_no_list_of_files(files: Any) -> None:
    with pytest.raises(InvalidArgument, match="audio: must be a list"):
        read_inputs(files, NET, fixtures.PIANO)


@pytest.mark.parametrize("file", [None, 5, ["x"], True])
def test_a_file_of_a_wrong_type_is_named(file: Any) -> None:
    assert refused(wav(10), file).startswith("audio[1]: must be a path")


def test_a_path_with_a_null_character_is_no_path() -> None:
    assert "is no path" in refused("a\0b")


def test_bytes_over_the_networks_limit_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="over the 100000 bytes"):
        read_inputs([wav(100_001)], NET, fixtures.PIANO)
    with pytest.raises(Rejected, match="over the"):
        read_inputs([wav(60_000), Path("/dev/zero")], NET, fixtures.PIANO)


def test_more_files_than_a_task_may_have_are_refused() -> None:
    assert "9 files, at most 8" in refused(*[wav(10)] * 9)
