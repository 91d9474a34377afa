"""The audio-to-piano model: a small Pop2Piano, trained on pieces of the composer in `music`.

`score` is the piano part of a piece as Pop2Piano's tokens, `model` the network, `dataset` its
training steps and losses, `evaluate` its tests. It may import the product, `scripts.models.music`
and itself.
"""
