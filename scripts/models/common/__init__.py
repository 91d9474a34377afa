"""What both models share: training loop, export, evaluation, audio analysis, spectrograms.

`train`, `export`, `evaluate` and `spectrogram` are the commands of `scripts/embed`. It may import
the product, `scripts.models.music` and `scripts.models.piano`.
"""
