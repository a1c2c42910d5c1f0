"""``bnn``, and ``python -m bnn_lightning``."""

import sys

from bnn_lightning.cli import entry

# Studies and the server stand above the command line, which therefore learns of their verbs here.
PROGRAMS = {
    "study": "bnn_lightning.studies.command:study",
    "demo": "bnn_lightning.cli.demo:demo",
    "configs": "bnn_lightning.cli.shipped:configs",
    "serve": "bnn_lightning.serving.command:serve",
}


def main() -> int:
    """Runs the command line; gives its exit code."""
    return entry.main(programs=PROGRAMS)


if __name__ == "__main__":
    sys.exit(main())
