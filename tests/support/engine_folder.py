"""A plugin of pytest: the engine's libraries are those of the folder HELIUM_ENGINE_FOLDER."""

import os
from pathlib import Path

from executor.engine import library

library.FOLDER = Path(os.environ["HELIUM_ENGINE_FOLDER"])
