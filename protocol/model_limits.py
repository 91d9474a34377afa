"""What a listed model can do: the `limits` of its entry in the network document (section 3).

So every peer refuses what the model's class cannot do without having the model. What `limits`
leaves out limits nothing, and neither does a member of it that is not known here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from protocol.wire.encoding import Document

MOST = ("max_new_tokens", "num_return_sequences")


def objection(limits: Document, args: Document) -> str:
    """Return what a task asks that its model does not do, naming the field; "" if nothing.

    Both have passed their schemas. What a task leaves out or sets to null is the model's own, and
    always fine; so is the dtype "auto".
    """
    known: Mapping[str, Any] = limits
    config: Any = args.get("generation_config")
    asked = {} if config is None else {k: v for k, v in config.items() if v is not None}
    return (
        _unknown(known.get("generation_config"), config, asked)
        or _excess(known, asked)
        or _unfit(known.get("dtypes"), "dtype", args.get("dtype"))
        or _unfit(known.get("quantize_bits"), "quantize_bits", args.get("quantize_bits"))
    )


def _unknown(taken: Sequence[str] | None, config: object, asked: Mapping[str, object]) -> str:
    if taken is None or config is None:
        return ""
    for member in asked:
        if member not in taken:
            others = f"; it takes {', '.join(taken)}" if taken else ""
            return f"args.generation_config.{member}: this model does not take it{others}"
    return "" if taken else "args.generation_config: this model takes none, not even an empty one"


def _excess(known: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    for field in MOST:
        value, most = asked.get(field), known.get(field)
        if value is not None and most is not None and value > most:
            return f"args.generation_config.{field}: {value} is over this model's limit, {most}"
    return ""


def _unfit(able: Sequence[object] | None, field: str, asked: object) -> str:
    if able is None or asked in (None, "auto", *able):
        return ""
    others = f", only in {' and '.join(map(str, able))}" if able else ""
    return f"args.{field}: this model does not compute in {asked}{others}"
