"""The protocol: what peers say and what follows from it. The normative text is `README.md` here.

Pure: no IO, clock, randomness or logging; times are arguments. It may import `schemas` only.
Public names: `network`, `model_limits`, `work`, `manifest`, `errors`, `constants`, and the packages
`wire` (bytes to messages) and `consensus` (messages to certificates).
Section numbers in docstrings and comments are those of the normative text.
"""
