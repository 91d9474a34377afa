"""Write the golden vectors, tests/vectors/*.json, or compare them with what the code says."""

from scripts import arguments as script_arguments
from scripts import one_line
from tests.vectors import files


def main(arguments: list[str] | None = None) -> int:
    parser = script_arguments.Parser("scripts/vectors", own_help=False)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--folder", type=script_arguments.folder, default=files.FOLDER)
    chosen = parser.parse_args(arguments)
    if not chosen.check:
        files.write(chosen.folder)
        return 0
    wrong = files.differing(chosen.folder)
    for name in wrong:
        print(f"{chosen.folder / name} is not what the code says; scripts/vectors writes it anew")
    return 1 if wrong else 0


if __name__ == "__main__":
    one_line.run(main)
