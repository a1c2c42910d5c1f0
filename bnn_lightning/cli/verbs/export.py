"""Write a checkpoint's predictive, or its mean weights as a smaller network, for programs without this package."""

from pathlib import Path

from jsonargparse import Namespace

from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.cli.errors import UsageError, stopped_by_sigterm
from bnn_lightning.cli.kept_weights import kept_below, load_for_removal, sparsity_results
from bnn_lightning.cli.results import shown_once_written
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.compression.shrink import stays
from bnn_lightning.compression.sparsity import masks, masks_removing
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.core.posteriors import LOG_ALPHA_THRESHOLD
from bnn_lightning.deployment import ExportFormat, Onnx, Pt2
from bnn_lightning.deployment.dense import export_dense
from bnn_lightning.deployment.metadata import export_graph
from bnn_lightning.files import as_word, relative_to_cwd
from bnn_lightning.likelihoods import Categorical
from bnn_lightning.reporting.results import write_table
from bnn_lightning.reporting.tables import show_export, show_sparsity
from bnn_lightning.shipped import beside
from bnn_lightning.training.loading import load_record


class Export(Verb):
    """Writes a graph from pixels to probabilities; or a smaller network, without what has no weights, and measures it.

    A graph needs no images.
    """

    stage = "test"

    def check(self, config: Namespace) -> None:
        if config.what is not None:
            for flag, default in (("removed", None), ("threshold", LOG_ALPHA_THRESHOLD)):
                if config[flag] != default:
                    raise UsageError(f"--{flag} is for the smaller network; --what {config.what} removes no weights.")

    def needs_images(self, config: Namespace) -> bool:
        return config.what is None

    def run(
        self,
        session: Session,
        format: ExportFormat = Pt2(),  # noqa: B008
        what: str | None = None,
        output: str | None = None,
        removed: float | None = None,
        threshold: float = LOG_ALPHA_THRESHOLD,
    ) -> None:
        """Writes a file.

        Args:
            format: the kind of file: pt2 or onnx, or the class path of your own.
            what: a graph with preprocessing and calibration inside. moments: mean and variance of every activation in
                one pass; mean: mean weights; samples:T, such as samples:25: that many draws of the weights, all of them
                in the file; ensemble: moments of several networks, or their mean weights. null is the smaller network
                of the kept weights.
            output: the file to write; null is beside the checkpoint, with the format's ending; in the
                current folder for a checkpoint that comes with the package.
            removed: share of all weights to remove, those of lowest |mu| / sigma first; null goes by the threshold.
            threshold: weights with log alpha above it are removed; 3 is the published one.
        """
        _check_ending(format, output)
        if what is not None:
            _write_graph(session, format, what, output)
            return
        checkpoint, network, likelihood = session.checkpoint, session.model.network, session.model.likelihood
        if not isinstance(likelihood, Categorical):
            ways = "moments, mean or samples:25" if session.model.is_bayesian else "mean"
            raise UsageError(
                f"--what is missing: smaller networks are measured on classes, which {type(likelihood).__name__} "
                f"lacks; --what {ways} exports the predictive."
            )
        test_images = load_for_removal(session)
        if removed is None and not session.model.removes_weights:
            raise UsageError(
                "--removed is missing: this method drives no weights to zero by itself; "
                f"bnn prune --ckpt_path {as_word(checkpoint.path)} shows what each share of them costs, and "
                "--what moments exports the whole predictive."
            )
        if removed is None:
            keep, rule = masks(network, threshold), kept_below(threshold)
        else:
            keep = masks_removing(network, removed)
            rule = f"{100 * (1 - removed):.4g} % of weights with the highest |mu| / sigma"
        file = Path(output) if output else beside(checkpoint.path, f"{checkpoint.path.stem}{format.ending}")
        record = {"checkpoint": str(checkpoint.path), "data": checkpoint.data}
        with stopped_by_sigterm():
            rows, difference = export_dense(network, keep, test_images, file, record, format)

        def show() -> None:
            show_sparsity(session.console, sparsity_results(network, keep, rule))
            show_export(session.console, rows)

        with shown_once_written(show):
            written = [file, *write_table(session.run.logs, f"export_{checkpoint.path.stem}", rows)]
        if kept_whole := stays(to_plain(network)):
            session.print(f"All channels stay that reach {', '.join(kept_whole)}")
        session.print(f"Largest difference of a logit between the dense network and the kept weights: {difference:.2g}")
        session.print(f"Written: {', '.join(map(relative_to_cwd, written))}; {format.how_to_load}")


def _check_ending(format: ExportFormat, output: str | None) -> None:
    """Refuses a file that is called like one of another format."""
    others = {kind.ending: kind.__name__.lower() for kind in (Pt2, Onnx) if kind.ending != format.ending}
    if output is not None and (other := others.get(Path(output).suffix.lower())):
        raise UsageError(
            f"--output {output} has the ending of {other}, and --format is {type(format).__name__.lower()}; "
            f"--format {other} writes it."
        )


def _write_graph(session: Session, format: ExportFormat, what: str, output: str | None) -> None:
    checkpoint, model = session.checkpoint, session.model
    load_record(model, checkpoint)
    trained = Trained(model.network.eval(), model.likelihood, model.sampling, model.calibration)
    file = Path(output) if output else beside(checkpoint.path, f"{checkpoint.path.stem}{format.ending}")
    with stopped_by_sigterm():
        said = export_graph(checkpoint, trained, what, file, format)
    shape = ", ".join(map(str, said["input"]["shape"]))
    session.print(f"Input: {said['input']['name']} ({shape}), {said['input']['dtype']}")
    session.print(f"Outputs: {', '.join(said['outputs'])}")
    for caveat in said["caveats"]:
        session.print(f"Caveat: {caveat}")
    session.print(f"Written: {relative_to_cwd(file)}, {file.stat().st_size:,} bytes; {format.how_to_load}")
