"""Measure a checkpoint's mean weights without more and more of those that carry least signal."""

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.kept_weights import load_for_removal
from bnn_lightning.cli.results import shown_once_written
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.compression.pruning import PRUNING_SHARES, pruning_sweep
from bnn_lightning.files import relative_to_cwd
from bnn_lightning.reporting import figures
from bnn_lightning.reporting.results import write_table
from bnn_lightning.reporting.tables import show_pruning


class Prune(Verb):
    """Shows and draws accuracy by the share of weights that is removed."""

    stage = "test"

    def run(self, session: Session, removed: float | list[float] | None = None) -> None:
        """Measures mean weights without those of lowest signal-to-noise.

        Args:
            removed: share of all weights to remove, or several as [0.5, 0.9]; null is 0, 0.5, 0.75, 0.9, 0.95, 0.98
                and 0.99.
        """
        shares = PRUNING_SHARES if removed is None else [removed] if isinstance(removed, float | int) else removed
        if not shares:
            raise UsageError("--removed must be a share of the weights, or several, got none.")
        path, logs = session.checkpoint.path, session.run.logs
        rows = pruning_sweep(session.model.network, load_for_removal(session), shares)
        name = f"pruning_{session.data_description['name'].lower()}_{path.stem}"
        figure = logs / f"{name}.png"
        title = f"{relative_to_cwd(path)}: mean weights"
        with shown_once_written(lambda: show_pruning(session.console, rows)):
            written = write_table(logs, name, rows)
            figures.pruning_curve(figure, [row["removed"] for row in rows], [row["accuracy"] for row in rows], title)
        session.print(f"Written: {', '.join(map(relative_to_cwd, [*written, figure]))}")
