"""Measure a checkpoint on the part of the hold-out that selects the best epoch."""

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.images import refuse_idle_processes
from bnn_lightning.cli.results import evaluation_results
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.evaluation.draws import Draws, draws_of
from bnn_lightning.evaluation.metrics import Estimate
from bnn_lightning.reporting.tables import show_evaluation


class Validate(Verb):
    """Shows the metrics of the selection half of the hold-out."""

    stage = "validate"

    def run(self, session: Session) -> None:
        """Measures a checkpoint on the hold-out."""
        model, trainer, path = session.model, session.trainer, session.checkpoint.path
        refuse_idle_processes(session.datamodule, trainer.world_size)
        trainer.validate(model, session.datamodule, ckpt_path=path, verbose=False, weights_only=True)
        images = int(trainer.strategy.reduce(model.val_metrics.nll.count, reduce_op="sum"))
        if not images:
            raise UsageError(f"--ckpt_path {path} was trained without a hold-out to validate on.")
        values = {name: Estimate(value) for name, value in model.val_metrics.compute().items()}
        # A forward pass as in training; also of a deterministic network, whose table says so by itself.
        draws: Draws = "weights" if draws_of(model.network, "local") == "weights" else "local"
        results = evaluation_results(session, {"samples": values}, images, draws, model.val_samples)
        if trainer.is_global_zero:
            show_evaluation(session.console, results)
