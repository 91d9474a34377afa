"""The command `helium`, also as `python -m node.cli`. A signal may come while it imports."""

from node.cli import interrupts


def main() -> None:
    """Run the command `helium`."""
    interrupts.install()
    # A fifth of a second. A subcommand imports more, up to seconds.
    from node.cli.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
