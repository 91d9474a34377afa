"""The task kinds, one module each, and what they share: loading, token traces, fast layers.

It may import all of `executor` but `worker`, and the pure `protocol`; every module imports torch.
Public names: `text_to_music.load` and `sounds`, `pop2piano.load` and `covers`.
"""
