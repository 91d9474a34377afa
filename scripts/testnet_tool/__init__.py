"""A local test network: several nodes, liars if wanted, and one task from submission to WAV file.

`nodes` creates and runs the daemons (also for tests, chaos and benchmarks), `liar` is a node with
altered results. It may import anything of the product.
"""
