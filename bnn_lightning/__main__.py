"""``bnn``, and ``python -m bnn_lightning``."""

import sys

from bnn_lightning.cli import entry


def main() -> int:
    """Runs the command line; gives its exit code."""
    # Studies and the server stand above the command line, which therefore learns of their verbs here.
    return entry.main(
        programs={
            "study": "bnn_lightning.studies.command:study",
            "configs": "bnn_lightning.cli.shipped:configs",
            "serve": "bnn_lightning.serving.command:serve",
        }
    )


if __name__ == "__main__":
    sys.exit(main())
