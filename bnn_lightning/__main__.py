"""``bnn``, and ``python -m bnn_lightning``."""

import sys


def main() -> int:
    """Runs the command line; gives its exit code."""
    if sys.argv[1:2] == ["study"]:
        from bnn_lightning.studies import study  # and Optuna, which the other verbs need not wait for

        return study(sys.argv[2:])
    from bnn_lightning.cli import main as verb

    return verb()


if __name__ == "__main__":
    sys.exit(main())
