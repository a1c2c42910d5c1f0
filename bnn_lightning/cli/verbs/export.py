"""Write a checkpoint's mean weights as a smaller network that plain torch loads."""

from pathlib import Path

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.kept_weights import kept_below, load_for_removal, sparsity_results
from bnn_lightning.cli.results import shown_once_written
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.compression.sparsity import masks, masks_removing
from bnn_lightning.core.posteriors import LOG_ALPHA_THRESHOLD
from bnn_lightning.deployment import ExportFormat, Pt2
from bnn_lightning.deployment.dense import export_dense
from bnn_lightning.files import relative_to_cwd
from bnn_lightning.reporting.results import write_table
from bnn_lightning.reporting.tables import show_export, show_sparsity


class Export(Verb):
    """Writes a network without the units and features that have no weights left, and measures it."""

    stage = "test"

    def run(
        self,
        session: Session,
        format: ExportFormat = Pt2(),  # noqa: B008
        output: str | None = None,
        removed: float | None = None,
        threshold: float = LOG_ALPHA_THRESHOLD,
    ) -> None:
        """Writes a smaller network.

        Args:
            format: the kind of file.
            output: the file to write; null is beside the checkpoint, with the format's ending.
            removed: share of all weights to remove, those of lowest |mu| / sigma first; null goes by the threshold.
            threshold: weights with log alpha above it are removed; 3 is the published one.
        """
        checkpoint, network = session.checkpoint, session.model.network
        test_images = load_for_removal(session)
        if removed is None and not session.model.removes_weights:
            raise UsageError(
                "--removed is missing: this method drives no weights to zero by itself; "
                f"bnn prune --ckpt_path {checkpoint.path} shows what each share of them costs."
            )
        if removed is None:
            keep, rule = masks(network, threshold), kept_below(threshold)
        else:
            keep = masks_removing(network, removed)
            rule = f"{100 * (1 - removed):.4g} % of weights with the highest |mu| / sigma"
        file = Path(output) if output else checkpoint.path.with_suffix(format.ending)
        record = {"checkpoint": str(checkpoint.path), "data": checkpoint.data}
        rows, difference = export_dense(network, keep, test_images, file, record, format)

        def show() -> None:
            show_sparsity(session.console, sparsity_results(network, keep, rule))
            show_export(session.console, rows)

        with shown_once_written(show):
            written = [file, *write_table(session.run.logs, f"export_{checkpoint.path.stem}", rows)]
        session.print(f"Largest difference of a logit between the dense network and the kept weights: {difference:.2g}")
        session.print(f"Written: {', '.join(map(relative_to_cwd, written))}; {format.how_to_load}")
