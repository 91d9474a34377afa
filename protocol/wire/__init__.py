"""Messages as bytes: canonical JSON, tagged hashes, signatures, the four messages and the codec.

It may import `schemas`, `protocol.errors` and `protocol.constants`.
Public names: `encoding`, `signing`, `messages`, `codec`.
Only `codec` makes messages from foreign bytes. A message is therefore valid by type: its schema,
network and signature are checked.
"""
