"""Limits and windows of protocol version 1, each with its reason (specification 2 to 4)."""

from dataclasses import dataclass

VERSION = 1

ENVELOPE_LIMIT = 65_536  # bytes; specification 2, one gossip message stays small
DOCUMENT_LIMIT = 1_048_576  # bytes; specification 2: certificates, network documents, answers
MAX_DEPTH = 16  # containers inside one another; specification 2, bounds the parser's recursion
MAX_INTEGER = 2**53 - 1  # RFC 7493 section 2.2: what every JSON implementation holds exactly
TRACE_LIMIT = 8_192  # bytes of canonical JSON; specification 4
SALT_BYTES = 32  # specification 4


@dataclass(frozen=True, slots=True)
class Parameters:
    """The `parameters` of a network document (specification 3); seconds and bytes.

    The defaults are the specification's.
    """

    committee_size: int = 3
    committee_max: int = 7
    commit_grace_seconds: float = 2
    attempt_seconds: float = 120
    max_deadline_seconds: int = 3600
    clock_skew_seconds: float = 60
    max_input_bytes: int = 33_554_432
    max_output_bytes: int = 134_217_728
