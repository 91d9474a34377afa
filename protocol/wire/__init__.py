"""Messages as bytes: canonical JSON, tagged hashes, signatures and the codec.

It may import `schemas`, `protocol.errors` and `protocol.constants`.
Public names: `encoding`, `signing`, `messages`, `codec`.
"""
