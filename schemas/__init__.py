"""What a Helium document may look like: JSON Schema 2020-12 files and the one check over them.

The files stand beside this module, one per document, named as in `names()`. They say what a single
document may look like; rules between documents, or between distant fields, are `protocol`'s.
"""

import functools

import jsonschema_rs

from schemas.documents import load, names, registry
from schemas.errors import SchemaViolation, explain

__all__ = ["SchemaViolation", "check", "load", "names"]


def check(name: str, document: object, *, at: str = "") -> None:
    """Raise `SchemaViolation` unless the parsed JSON `document` fits the schema `name`.

    `at` is the path of `document` in what it was taken from ("args"): errors name it in front.
    Microseconds for a body of usual size. `KeyError` for a name not in `names()`. `document` must
    be what `json.loads` gives: an integer of over 4,300 digits, which that refuses, passes here.
    """
    validator = _validator(name)
    try:
        validator.validate(document)
    except jsonschema_rs.ValidationError as error:
        raise explain(error, document, at) from None
    except ValueError as error:  # what is not JSON at all, such as a lone surrogate
        raise SchemaViolation(at, document, f"must be I-JSON ({error})") from None


@functools.cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    if name not in names():
        raise KeyError(name)
    return jsonschema_rs.Draft202012Validator(
        load(name), registry=jsonschema_rs.Registry(registry()), offline=True
    )
