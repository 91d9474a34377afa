"""Ways to spoil what is valid: trees of JSON, and bytes. All chance comes from the dice given."""

import copy
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.0, 1e-320, 1e15, 1e16, 1e308, float("nan")),
    *(float("inf"), 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**400),
    *("", " ", "0", "null", "\x00", "\n", "é", "\ud800", "\udfff", "\ufffe", "\U0001fffe", "../x"),
    *("a" * 64, "f" * 63, "A" * 5_000, "\x7f", "cpu", "task", "12D3KooW" + "1" * 44, "-" * 86),
    *([], {}, [[]], [{}], {"": None}, [None] * 40, {"a": {"b": {"c": []}}}, [[[[[[[[]]]]]]]]),
)
TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\u", b"null"),
    *(b"NaN", b"-Infinity", b"1e999", b"-0", b"0.0", b"1E400", b"9" * 50, b"9" * 5_000, b"[" * 40),
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\n"),
    *(b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80", b" ", b"//"),
)


def bytes_of(document: object, dice: Random) -> bytes:
    """JSON of whatever it is, spelt in one of several ways."""
    spaced = dice.random() < 0.1
    text = json.dumps(
        document,
        ensure_ascii=dice.random() < 0.5,
        indent=1 if spaced else None,
        sort_keys=dice.random() < 0.5,
        separators=None if spaced else (",", ":"),
    )
    return text.encode("utf-8", "surrogatepass")


def tree(document: Any, dice: Random, most: int = 4) -> Any:
    """A copy of a JSON value with one to `most` places changed."""
    made = [copy.deepcopy(document)]  # in a list, so that the value itself has a place too
    for _ in range(dice.randint(1, most)):
        places = list(_places(made))
        if not places:
            break
        _change(*dice.choice(places), places, dice)
    return made[0] if made else None


def raw(content: bytes, dice: Random, most: int = 6) -> bytes:
    """The bytes with one to `most` places changed."""
    made = bytearray(content)
    for _ in range(dice.randint(1, most)):
        at = dice.randrange(len(made) + 1)
        end = min(len(made), at + dice.choice((1, 1, 2, 4, 16, 64, 1000)))
        match dice.randrange(7):
            case 0:
                del made[at:end]
            case 1:
                made[at:at] = dice.choice(TOKENS)
            case 2:
                made[at:at] = made[at:end]
            case 3 if at < len(made):
                made[at] ^= 1 << dice.randrange(8)
            case 4 if at < len(made):
                made[at] = dice.randrange(256)
            case 5:
                other = dice.randrange(len(made) + 1)
                made[other:other] = made[at:end]
            case 6 if dice.random() < 0.2:
                del made[at:]
    return bytes(made)


def noise(dice: Random, most: int = 300) -> bytes:
    """Bytes of no meaning, or a row of tokens."""
    if dice.random() < 0.5:
        return dice.randbytes(dice.randrange(most))
    return b"".join(dice.choice(TOKENS) for _ in range(dice.randrange(30)))


def spoilt(valid: Sequence[Any], dice: Random) -> bytes:
    """JSON bytes near one of the valid documents: as it is, or changed as a tree, as bytes or both.

    Now and then nothing like them.
    """
    document = dice.choice(valid)
    match dice.randrange(20):
        case 0:
            return noise(dice)
        case 1:
            return bytes_of(document, dice)
        case n if n < 13:
            return bytes_of(tree(document, dice), dice)
        case n if n < 18:
            return raw(bytes_of(document, dice), dice)
        case _:
            return raw(bytes_of(tree(document, dice), dice), dice)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key that holds something, at any depth."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        keys = list(found) if isinstance(found, dict) else range(len(found))
        for key in keys:
            yield found, key
            if isinstance(found[key], dict | list):
                waiting.append(found[key])


def _change(holder: Any, key: Any, places: list[tuple[Any, Any]], dice: Random) -> None:
    value = holder[key]
    match dice.randrange(9):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        case 1 | 2 if isinstance(holder, dict):  # retag
            holder[dice.choice((f"{key}x", key[:-1], "", "type", "seed"))] = holder.pop(key)
        case 3:  # exchange with another place's value
            other, place = dice.choice(places)
            if place in (other if isinstance(other, dict) else range(len(other))):
                holder[key] = copy.deepcopy(other[place])
        case 4:
            holder[key] = [value] if dice.random() < 0.5 else {str(key): value}
        case 5 | 6:
            holder[key] = _near(value, dice)
        case _:
            holder[key] = copy.deepcopy(dice.choice(ODD))


def _near(value: Any, dice: Random) -> Any:
    """A value of the same kind, and not far."""
    match value:
        case bool():
            return not value
        case int() | float():
            more = (value + 0.5, value * 1.0) if abs(value) < 2**64 else ()
            return dice.choice((value + 1, value - 1, -value, value * 2, *more))
        case str():
            at = dice.randrange(len(value) + 1)
            piece = dice.choice(("", "0", "a", "Z", "_", "é", value, value[at:]))
            return value[:at] + piece + value[at + dice.randrange(3) :]
        case list():
            return dice.choice((value + value, value[::-1], value[1:], value[:50] * 30))
        case dict():
            return dict(reversed(value.items())) | {dice.choice(("x", "seed", "network")): None}
    return copy.deepcopy(dice.choice(ODD))
