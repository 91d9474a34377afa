"""The text-to-music model: composer, captions, tokens, codec, language model and their datasets.

`brief` draws a piece's attributes, `composition` writes its score, `captions` describes it,
`tokens` encodes it, `instruments` and `render` play it, `codec` plays it from tokens, `model` is
the language model, `dataset` its training steps, `evaluate` its test. It may import the product,
`scripts.models.common.audio_analysis` and itself.
"""
