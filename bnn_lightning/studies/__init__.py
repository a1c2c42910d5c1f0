"""``bnn study``: runs a grid or a search of settings, and reports the results in one reproducible table."""

from bnn_lightning.studies.command import study

__all__ = ["study"]
