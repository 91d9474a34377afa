"""A caller's arguments, checked before anything is signed or sent: Python has values JSON has not.

Everything else of the client may rely on what these functions return.
"""

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

from protocol.constants import MAX_DEPTH, MAX_INTEGER
from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import Json, is_i_json_text
from schemas.errors import describe_value

# Hex digits of a task id, and the fewest of its beginning: others could make a shorter one.
ID_DIGITS, MIN_DIGITS = 64, 8
_TASK_ID = re.compile(f"[0-9a-f]{{{ID_DIGITS}}}")
_TASK_PREFIX = re.compile(f"[0-9a-f]{{{MIN_DIGITS},{ID_DIGITS}}}")
# Characters of a message, which may quote a path.
_MAX_DETAIL = 600
# Rejections of a value that no network takes. The others depend on the network document.
_MALFORMED = frozenset(
    (Rejection.INVALID_FIELD, Rejection.MALFORMED, Rejection.TOO_DEEP, Rejection.TOO_LARGE)
)


class InvalidArgument(Rejected, ValueError):
    """A caller's argument is of a wrong type or form; the detail names it and says what it is."""

    def __init__(self, detail: str) -> None:
        super().__init__(Rejection.INVALID_FIELD, detail[:_MAX_DETAIL])
        self.args = (self.detail,)  # the reason is for peers


def as_invalid_argument(rejected: Rejected) -> Rejected:
    """Return the `InvalidArgument` of a rejection that no network document has a part in."""
    if rejected.reason not in _MALFORMED:
        return rejected
    return InvalidArgument(rejected.detail.removeprefix("body."))


def json_value(value: object, field: str, depth: int = 0) -> Json:
    """Return a Python value as JSON has it; numpy's scalars become numbers.

    Raises InvalidArgument, which names the field, for what JSON or the protocol cannot hold.
    """
    if depth > MAX_DEPTH:
        raise InvalidArgument(f"{field[:80]}: nested deeper than {MAX_DEPTH}")
    value = _plain(value)
    match value:
        case None | bool():
            return value
        case str():
            return text(value, field)
        case numbers.Real():
            return _number(value, field)
        case Mapping():
            return {
                text(name, f"a name in {field}"): json_value(item, f"{field}.{name}", depth + 1)
                for name, item in value.items()
            }
        case list() | tuple():
            return [json_value(v, f"{field}[{i}]", depth + 1) for i, v in enumerate(value)]
    raise InvalidArgument(f"{field}: {describe_value(value)} is nothing that JSON has")


def members(args: object) -> Mapping[str, Json]:
    """Return a task's arguments as JSON has them. Raises InvalidArgument, naming the field."""
    form = json_value(args, "args")
    if not isinstance(form, Mapping):
        raise InvalidArgument(f"args: must be a dictionary, not {describe_value(args)}")
    return form


def text(value: object, field: str) -> str:
    """Return a string that JSON and UTF-8 can hold. Raises InvalidArgument."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{field}: must be a string, not {describe_value(value)}")
    if not is_i_json_text(value):
        raise InvalidArgument(f"{field}: is not Unicode text: give it as UTF-8")
    return str(value)


def _plain(value: Any) -> object:
    """Return a scalar of numpy or torch as Python's own; anything else as it is."""
    is_scalar = getattr(value, "shape", None) == () and callable(getattr(value, "item", None))
    return value.item() if is_scalar else value


def _number(value: Any, field: str) -> int | float:
    if isinstance(value, numbers.Integral):
        whole = int(value)
        if abs(whole) > MAX_INTEGER:
            described = describe_value(whole)
            raise InvalidArgument(f"{field}: {described} is beyond 2^53-1, JSON's largest integer")
        return whole
    try:
        number = float(value)
    except OverflowError:  # a fraction
        number = math.inf
    if not math.isfinite(number):
        raise InvalidArgument(f"{field}: {number} is no number that JSON has")
    if abs(number) > MAX_INTEGER:
        raise InvalidArgument(f"{field}: {number:g} is beyond 2^53-1, JSON's largest number")
    return number


def seconds(value: object) -> float | None:
    """Return a length in seconds; None if there is none. Raises InvalidArgument."""
    number = _plain(value)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise InvalidArgument(f"seconds: must be a number, not {describe_value(number)}")
    length = _number(number, "seconds")
    if length <= 0:
        raise InvalidArgument(f"seconds: {length:g} is no length in seconds")
    return float(length)


def addresses(peers: object) -> list[str]:
    """Return a list of multiaddrs. Raises InvalidArgument for another type."""
    if isinstance(peers, str | bytes) or not isinstance(peers, Sequence | set | frozenset):
        raise InvalidArgument(f"peers: must be a list of multiaddrs, not {describe_value(peers)}")
    return [text(address, f"peers[{index}]") for index, address in enumerate(peers)]


def task_id(value: object) -> str:
    """Return a task id. Raises InvalidArgument for what is none."""
    if not isinstance(value, str) or not _TASK_ID.fullmatch(value):
        described = describe_value(value)
        raise InvalidArgument(f"task: {described} is no task id, 64 lowercase hex characters")
    return value


def task_prefix(value: object) -> str:
    """Return the beginning of a task id. Raises InvalidArgument for what is none."""
    if not isinstance(value, str) or not _TASK_PREFIX.fullmatch(value):
        described = describe_value(value)
        raise InvalidArgument(
            f"task: {described} is no task id, 64 lowercase hex characters, nor its first "
            f"{MIN_DIGITS} or more"
        )
    return value
