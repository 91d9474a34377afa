"""Versions and limits of protocol version 2, each with its reason (specification 2 to 4)."""

# The version of network documents and certificates (specification 3 and 4).
VERSION = 2

# Bytes of an envelope (specification 2): one gossip message stays small enough to flood.
ENVELOPE_LIMIT = 65_536

# Bytes of evidence or an answer (specification 10).
DOCUMENT_LIMIT = 1_048_576

# Bytes of a network document (specification 10): room for 16,384 members with several classes each.
NETWORK_LIMIT = 8_388_608

# Bytes of a certificate (specification 10): an answer holds one, and has room for 64 KiB more.
CERTIFICATE_LIMIT = DOCUMENT_LIMIT - 65_536

# Nested containers in a document (specification 2): bounds the recursion of every parser.
MAX_DEPTH = 16

# The largest integer that every JSON implementation holds exactly (RFC 7493 section 2.2).
MAX_INTEGER = 2**53 - 1

# Bytes of a trace as canonical JSON (specification 4): leaves room for the outcome in a reveal.
TRACE_LIMIT = 8_192

# Random bytes in a commitment (specification 4): an outcome cannot be guessed from its commitment.
SALT_BYTES = 32

# Seconds after a task's deadline (specification 6.12, 7.9): no vote on it is signed later, and its
# envelopes are kept at least so long. A vote whose record was lost is thus in feeds while it could
# be contradicted; between the two lies a day for clocks that differ.
SIGNING_SECONDS = 86_400
KEEPING_SECONDS = 172_800

# Bytes of a token in a tokens blob (specification 8.11).
TOKEN_BYTES = 4
