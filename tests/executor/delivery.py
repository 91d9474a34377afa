"""A task's arguments as a worker gets them."""

from collections.abc import Mapping
from typing import Any, cast

from protocol.constants import ENVELOPE_LIMIT
from protocol.wire.encoding import canonical, parse


def delivered(args: Mapping[str, object]) -> Mapping[str, Any]:
    """Return arguments as the wire delivers them: canonical bytes, parsed; so 2.0 becomes 2."""
    return cast("Mapping[str, Any]", parse(canonical(cast("Any", args)), ENVELOPE_LIMIT))
