"""Say what a file is that is neither WAV nor FLAC, by its first bytes: for people only."""

import re
from collections.abc import Sequence

# Bytes that decide: an MPEG transport stream repeats its mark after 188.
START_BYTES = 512

# (offset, bytes there, what it is). The first match counts.
_MAGIC: Sequence[tuple[int, bytes, str]] = (
    (0, b"RF64", "RF64, a WAV for over 4 GB"),
    (0, b"RIFX", "RIFX, a WAV of big-endian samples"),
    (0, b"riff\x2e\x91\xcf\x11", "W64 (Sony Wave64)"),
    (8, b"AVI ", "AVI video"),
    (8, b"WEBP", "a WebP picture"),
    (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF-C"),
    (4, b"ftypM4A", "M4A (AAC or ALAC)"),
    (4, b"ftypM4B", "M4B (AAC)"),
    (4, b"ftypqt", "QuickTime video"),
    (4, b"ftyp", "MP4 (AAC or video)"),
    (0, b"caff", "CAF"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA or WMV (ASF)"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b".snd", "AU"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA", "True Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b"ADIF", "AAC"),
    (0, b"#!AMR", "AMR"),
    (0, b"Creative Voice File", "VOC"),
    (0, b"FLV", "Flash video"),
    (0, b"\0\0\x01\xba", "MPEG video"),
    (0, b"\0\0\x01\xb3", "MPEG video"),
    (0, b"MThd", "a MIDI file, which holds notes and no sound"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"RIFF", "RIFF, but no WAV"),
)
_OGG = (
    (b"OpusHead", "Opus (Ogg)"),
    (b"\x01vorbis", "Vorbis (Ogg)"),
    (b"\x7fFLAC", "FLAC in Ogg"),
    (b"Speex", "Speex (Ogg)"),
    (b"theora", "Ogg video"),
)
LFS = "a Git LFS pointer instead of the file itself: fetch it with git lfs pull"
# What no program can turn into audio.
NOT_AUDIO = ("a ", "an ", "text", "HTML", "empty", "JSON")
_HTML = re.compile(rb"\s*<(!doctype html|html|head|\?xml)", re.IGNORECASE)


def content_name(start: bytes) -> str:
    """Return what a file with these first `START_BYTES` is, in a few words."""
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return LFS
    for offset, magic, name in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return name
    if start[:4] == b"OggS":
        return next((name for magic, name in _OGG if magic in start), "Ogg")
    if start[:3] == b"ID3":
        return "MP3 (or another file behind an ID3 tag)"
    if start[0] == 0x47 and start[188:189] == b"\x47":
        return "MPEG video (transport stream)"
    return _mpeg_name(start) or _text_name(start) or "of no format that is known here"


def is_audio(name: str) -> bool:
    """Return whether a converter could make audio of it, by its name from `content_name`."""
    return not name.startswith(NOT_AUDIO)


def _mpeg_name(start: bytes) -> str:
    """Return the kind of an MPEG audio stream, which begins with eleven ones; "" if it is none."""
    is_utf_16 = start[:2] == b"\xff\xfe"  # its mark looks like a rare kind of MPEG audio
    if len(start) < 2 or start[0] != 0xFF or start[1] & 0xE0 != 0xE0 or is_utf_16:
        return ""
    layer = start[1] >> 1 & 3
    if layer == 0:
        return "AAC" if start[1] & 0xF0 == 0xF0 else ""
    return "MP3" if layer == 1 else "MPEG audio"


def _text_name(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "text (UTF-16)"
    start = start.removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(start):
        return "HTML, a web page"
    try:
        # The last character may be cut off.
        text = start[:-4].decode() if len(start) == START_BYTES else start.decode()
    except UnicodeDecodeError:
        return ""
    if not all(character.isprintable() or character.isspace() for character in text):
        return ""
    return "JSON" if text.lstrip()[:1] in ("{", "[") else "text"
