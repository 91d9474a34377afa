"""Configuration files of strangers: read within bounds, or refused with the file and the reason.

JSON here is what every reader takes alike: UTF-8 without a byte order mark, no member twice, finite
numbers that fit 64 bits, text without lone surrogates. A library may convert anything else, or fail
in the middle of a job.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from executor.errors import ModelRefused
from schemas.errors import describe_value, printable

# Bytes. The index of a large model has some hundred thousand; only a tokenizer may be larger.
CONFIGURATION_LIMIT = 4_194_304
TOKENIZER_LIMIT = 134_217_728
# A tokenizer.json is about ten deep.
MAX_DEPTH = 64
# Of a number's text: more than any float or any integer of 64 bits needs.
MAX_DIGITS = 400
INT_LIMIT = 2**63
# What transformers writes for "no limit": int(1e30), in these members.
UNLIMITED, UNLIMITED_MEMBERS = int(1e30), ("model_max_length", "max_len")
BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
# How a file begins that Git LFS has left out.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> object:
    """Return the content of a configuration file of bounded size. Raises `ModelRefused`."""
    name = printable(path.name)
    limit = TOKENIZER_LIMIT if path.name == "tokenizer.json" else CONFIGURATION_LIMIT
    if path.stat().st_size > limit:
        raise ModelRefused(f"{name} is larger than {limit} bytes")
    content = path.read_bytes()
    refuse_lfs_pointer(name, content)
    if content.startswith(BYTE_ORDER_MARKS):
        raise ModelRefused(f"{name} begins with a byte order mark: save it as UTF-8 without one")
    try:
        document = json.loads(
            content.decode(),
            object_pairs_hook=_unique_members,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_refuse_number,
        )
    except UnicodeDecodeError as error:
        raise ModelRefused(f"{name} is not UTF-8: byte {error.start} is not") from error
    except RecursionError as error:
        raise ModelRefused(f"{name} is nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise ModelRefused(f"{name} is not JSON: {printable(str(error))}") from error
    check_values(name, document)
    return document


def refuse_lfs_pointer(name: str, content: bytes) -> None:
    """Raise `ModelRefused` if a file's first bytes are those of a Git LFS pointer."""
    if content.startswith(LFS_POINTER):
        raise ModelRefused(f"{name} is a Git LFS pointer, not the file: run `git lfs pull`")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in document if names.count(name) > 1)
        raise ValueError(f"the member {describe_value(twice)} occurs twice")
    return document


def _integer(text: str) -> int:
    return int(text) if len(text) <= MAX_DIGITS else _refuse_number(text)


def _number(text: str) -> float:
    number = float(text) if len(text) <= MAX_DIGITS else _refuse_number(text)
    return number if abs(number) != float("inf") else _refuse_number(text)


def _refuse_number(text: str) -> Any:
    raise ValueError(f"the number {text:.24} is too large, or none")


def check_values(name: str, document: object) -> None:
    """Raise `ModelRefused` for a text or a number that not every reader takes alike."""
    # A stack instead of recursion: a stranger decides the depth.
    waiting = [("", document, 1)]
    while waiting:
        key, node, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ModelRefused(f"{name} is nested deeper than {MAX_DEPTH}")
        if isinstance(node, dict):
            for member in node:
                check_text(name, member)
            waiting.extend((member, value, depth + 1) for member, value in node.items())
        elif isinstance(node, list):
            waiting.extend((key, value, depth + 1) for value in node)
        elif isinstance(node, str):
            check_text(name, node)
        elif isinstance(node, int) and not _fits(key, node):
            raise ModelRefused(f"{name}: {printable(key)}: the number does not fit 64 bits")


def _fits(key: str, number: int) -> bool:
    is_unlimited = number == UNLIMITED and key in UNLIMITED_MEMBERS
    return is_unlimited or -INT_LIMIT <= number < INT_LIMIT


def check_text(name: str, text: str) -> None:
    """Raise `ModelRefused` for a text that has no UTF-8 form."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ModelRefused(f"{name} has a text with a lone surrogate") from error


def members(document: object) -> Iterator[tuple[str, object]]:
    """Yield every member of every object in a JSON document, at any depth."""
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node.items()
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def configuration(folder: Path, name: str) -> Mapping[str, Any]:
    """Return a configuration file of a folder, {} if it has none. Raises `ModelRefused`."""
    if not (folder / name).exists():
        return {}
    document = read_json(folder / name)
    if not isinstance(document, dict):
        raise ModelRefused(f"{name} is not an object")
    return document


def check_integer(name: str, value: object, least: int, most: int) -> int:
    """Return a setting. Raises `ModelRefused` unless it is an integer in a range."""
    if type(value) is not int or not least <= value <= most:
        raise ModelRefused(f"{name} is {value!r:.80}, not in {least} .. {most}")
    return value
