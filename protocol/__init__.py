"""What peers say and what follows from it: pure, no IO, no clock, no randomness.

The normative text is `protocol/README.md`. Section numbers in docstrings are its own.
"""
