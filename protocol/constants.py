"""Limits and windows of protocol version 1, each with its reason (specification 2 to 4)."""

VERSION = 1

ENVELOPE_LIMIT = 65_536  # bytes; specification 2, one gossip message stays small
DOCUMENT_LIMIT = 1_048_576  # bytes; specification 2: certificates, network documents, answers
MAX_DEPTH = 16  # containers inside one another; specification 2, bounds the parser's recursion
MAX_INTEGER = 2**53 - 1  # RFC 7493 section 2.2: what every JSON implementation holds exactly
TRACE_LIMIT = 8_192  # bytes of canonical JSON; specification 4
SALT_BYTES = 32  # specification 4
