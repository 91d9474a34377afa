"""Tiny models with random weights, one builder per class of model, for tests and measurements.

Each module has `build(folder: Path) -> None`, which writes a model folder as a model hub would
serve it. They say nothing that means anything; but everything that they say depends on the prompt,
the seed and the settings, as it does with their large siblings.
"""
