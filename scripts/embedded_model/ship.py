"""Write an embedded model's folder from a checkpoint of `train`, all but its card.

Usage: scripts/embed ship {music,piano} CHECKPOINT [FOLDER]
       (default: its place in executor/shipped)
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from executor.models.folders import SHIPPED
from scripts.embedded_model import shipping
from scripts.embedded_model.shipping import MODELS


def main() -> None:
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in MODELS:
        sys.exit(__doc__)
    model, checkpoint = sys.argv[1], Path(sys.argv[2])
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else SHIPPED / MODELS[model]
    {"music": shipping.music, "piano": shipping.piano}[model](checkpoint, folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>9}  {path.name}")


if __name__ == "__main__":
    main()
