"""The forms of all documents: JSON Schema 2020-12 files and the one function that checks them.

It imports nothing of the project. Public names: `check`, `load`, `names`, `SchemaViolation`.
The files stand beside this module, one per document, named as in `names()`. A schema describes one
document; rules between documents or between distant fields belong to `protocol`.
"""

import functools

import jsonschema_rs

from schemas.documents import load, names, registry
from schemas.errors import SchemaViolation, explain

__all__ = ["SchemaViolation", "check", "load", "names"]


def check(name: str, document: object, *, at: str = "") -> None:
    """Raise `SchemaViolation` unless the parsed JSON `document` fits the schema `name`.

    `at` is the path of `document` inside a larger document, such as "args": errors put it in front
    of the field. Raises `KeyError` for a name that is not in `names()`. `document` must come from
    `json.loads`, which rejects integers of over 4,300 digits; they would pass here.
    """
    validator = _validator(name)
    try:
        validator.validate(document)
    except jsonschema_rs.ValidationError as error:
        raise explain(error, document, at) from None
    except ValueError as error:  # not JSON at all, such as a lone surrogate
        raise SchemaViolation(at, document, f"must be I-JSON ({error})") from None


@functools.cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    if name not in names():
        raise KeyError(name)
    return jsonschema_rs.Draft202012Validator(
        load(name), registry=jsonschema_rs.Registry(registry()), offline=True
    )
