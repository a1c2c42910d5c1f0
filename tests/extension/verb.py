"""Show the layers of a checkpoint, and which of their numbers are random."""

from bnn_lightning import describe
from bnn_lightning.cli import Session, Verb


class Layers(Verb):
    """Shows a table."""

    def run(self, session: Session, only_random: bool = False) -> None:
        """Shows the layers.

        Args:
            only_random: leave out layers without random numbers.
        """
        lines = str(describe(session.model.network)).splitlines()
        session.print("\n".join(line for line in lines if not only_random or "  -  " not in line))
