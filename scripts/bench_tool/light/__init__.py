"""Networks of light nodes, whose cost `scripts/bench idle`, `burst` and `blobs` measure.

`node` is a light node that counts its bytes and may sample its stacks, `samples` says which part of
the program a sample belongs to, `network` starts nodes and reads what they have used. `transfer` is
one side of a transfer of a blob.
"""
