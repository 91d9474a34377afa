"""What a file is said to be that is no input: the formats that people have."""

import io
from typing import Any

import numpy as np
import pytest
import soundfile

from executor.audio.decode import decode
from executor.audio.recognize import content_name, is_audio
from executor.errors import TaskFailed

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
KNOWN = [
    (b"", "empty", False),
    (POINTER, "Git LFS pointer", False),
    (b"\xff\xfb\x90\x64" + bytes(100), "MP3", True),
    (b"ID3\x04\0\0\0\0\0\0", "MP3", True),
    (b"\xff\xf1\x50\x80" + bytes(100), "AAC", True),
    (b"\xff\xfd\x90\x64", "MPEG audio", True),
    (b"\0\0\0\x20ftypM4A \0\0\2\0", "M4A", True),
    (b"\0\0\0\x20ftypisom\0\0\2\0", "MP4", True),
    (b"\0\0\0\x14ftypqt  ", "QuickTime", True),
    (b"OggS\0\2" + bytes(22) + b"OpusHead", "Opus", True),
    (b"OggS\0\2" + bytes(22) + b"\x01vorbis", "Vorbis", True),
    (b"OggS\0\2" + bytes(22) + b"\x7fFLAC", "FLAC in Ogg", True),
    (b"FORM\0\0\0\0AIFF", "AIFF", True),
    (b"FORM\0\0\0\0AIFC", "AIFF-C", True),
    (b"caff\0\1\0\0", "CAF", True),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "WMA", True),
    (b"\x1a\x45\xdf\xa3\x01", "WebM", True),
    (b"RIFF\0\0\0\0AVI LIST", "AVI", True),
    (b"RF64\xff\xff\xff\xffWAVEds64", "RF64", True),
    (b"\x47" + bytes(187) + b"\x47", "MPEG video", True),
    (b"<!DOCTYPE html><html>", "HTML", False),
    (b"\n  <html lang=en>", "HTML", False),
    (b'{"error": "not found"}', "JSON", False),
    (b"\xef\xbb\xbf[1, 2]", "JSON", False),
    ("Tonspur fürs Klavier".encode(), "text", False),
    (("aä" * 300).encode()[:512], "text", False),  # cut within a character
    ("song".encode("utf-16"), "text (UTF-16)", False),
    (b"PK\x03\x04", "ZIP", False),
    (b"MThd\0\0\0\6", "MIDI", False),
    (b"\x89PNG\r\n\x1a\n", "PNG", False),
    (b"\x01\x02\x03\x80" * 9, "no format that is known", True),
]


@pytest.mark.parametrize(("content", "name", "audio"), KNOWN, ids=lambda value: repr(value)[:24])
def test_a_file_that_is_no_input_is_named(content: bytes, name: str, audio: bool) -> None:
    assert name in content_name(content)
    assert is_audio(content_name(content)) is audio
    with pytest.raises(TaskFailed, match="neither WAV") as caught:
        decode(io.BytesIO(content))
    assert name in caught.value.detail


@pytest.mark.parametrize(
    ("form", "subtype", "name"),
    [
        ("AIFF", "PCM_16", "AIFF"),
        ("CAF", "PCM_16", "CAF"),
        ("AU", "PCM_16", "AU"),
        ("W64", "PCM_16", "W64"),
        ("RF64", "PCM_16", "RF64"),
        ("OGG", "VORBIS", "Vorbis"),
        ("OGG", "OPUS", "Opus"),
        ("MP3", "MPEG_LAYER_III", "MP3"),
    ],
)
def test_what_other_programs_write_is_named(form: str, subtype: str, name: str) -> None:
    file = io.BytesIO()
    samples: Any = np.zeros(4_800)
    soundfile.write(file, samples, 48_000, format=form, subtype=subtype)
    assert name in content_name(file.getvalue()[:512])
