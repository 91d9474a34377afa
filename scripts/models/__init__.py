"""Training of the shipped models from nothing: composer, codec, datasets, training, evaluation.

`music` makes `helium/embedded-music`: a composer writes training pieces, a codec with hand-written
weights plays them, and a language model learns to write them from captions. `piano` makes
`helium/embedded-pop2piano`, which writes the piano part of such pieces. `common` has the commands
of `scripts/embed` for both. Every draw comes from a `random.Random` seeded by a string, so a piece
is determined by its name. `music` imports nothing of `piano`; `common` imports both.
"""

import os

# Before any module imports transformers: nothing here may download anything.
os.environ["HF_HUB_OFFLINE"] = "1"
