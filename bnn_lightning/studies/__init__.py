"""``bnn study``: a grid or a search of runs as one table that a command rebuilds."""

from bnn_lightning.studies.command import study

__all__ = ["study"]
