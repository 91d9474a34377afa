"""The hypothesis profiles of all property tests."""

from hypothesis import settings

# The suite runs the same examples every time and has no deadline: a slow machine is no failure.
settings.register_profile(
    "suite", deadline=None, derandomize=True, max_examples=200, print_blob=True
)
# `scripts/fuzz` draws new examples in every round.
settings.register_profile("fuzz", deadline=None, max_examples=1_000, print_blob=True)
settings.load_profile("suite")
