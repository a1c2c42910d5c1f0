"""The command line, ``bnn``: LightningCLI with verbs of its own, and with errors of one sentence."""

from bnn_lightning.cli.entry import main, refusal
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.verbs import CommandLine

__all__ = ["CommandLine", "UsageError", "main", "refusal"]
