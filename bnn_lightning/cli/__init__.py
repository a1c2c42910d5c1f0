"""The command line, ``bnn``: LightningCLI with one file for each verb, and with errors of one sentence."""

from bnn_lightning.cli.entry import first_error, main
from bnn_lightning.cli.errors import UsageError

__all__ = ["UsageError", "first_error", "main"]
