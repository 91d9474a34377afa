"""How the embedded models are made from nothing: a composer, a codec, and what is trained on them.

`brief` draws what a piece shall be, `composer` writes it, `captions` says it in words, `notation`
turns it into the tokens of `vocabulary`, `codec` into sound, and `language` learns tokens from
words. Every draw comes from a `random.Random` seeded by a string, so a piece is its number.
"""
