"""Write a checkpoint's predictions, their uncertainty and what to make of them to predictions.csv."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.results import samples_of_calibration
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import class_of
from bnn_lightning.cli.trainer import stopped_by
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.data import DataSource
from bnn_lightning.files import UnwritableError, relative_to_cwd
from bnn_lightning.likelihoods.predictions import Predictions
from bnn_lightning.reporting.prediction_table import PredictionTable, check_output, table_text
from bnn_lightning.wording import counted, printable, with_counts


class Predict(Verb):
    """Writes a row for each image."""

    stage = "predict"
    labelled = False
    one_device = True

    def check(self, config: Namespace) -> None:
        for name in ("target_risk", "alpha"):
            if not 0 < config[name] < 1:
                raise UsageError(f"--{name} must be a rate between 0 and 1, such as 0.05, got {config[name]}.")
        error = config.target_error
        if error is not None and not error > 0:
            raise UsageError(f"--target_error must be above 0, in the units of the target, got {error}.")
        if error is not None and getattr(class_of(config.model.likelihood), "label_kind", None) == "classes":
            raise UsageError(f"--target_error is for labels that are numbers; classes have --target_risk, got {error}.")
        if config.output is not None:
            try:
                check_output(Path(config.output))
            except ValueError as wrong:
                raise UsageError(f"--{wrong}") from wrong

    def run(
        self,
        session: Session,
        target_risk: float = 0.01,
        alpha: float = 0.05,
        target_error: float | None = None,
        output: str | None = None,
    ) -> None:
        """Predicts, with what to make of each prediction.

        Args:
            target_risk: accept as many predictions as keep the error rate among them below this, and abstain from the
                others; by the calibration images, for images like those.
            alpha: the prediction set of an image misses the true class, or the interval of a number the true one, at
                most this often; likewise.
            target_error: where labels are numbers, the largest error that is no mistake, in the units of the target;
                null accepts and abstains from nothing.
            output: the file to write, whose ending is .csv or .parquet, in the place of one that is there; null is
                predictions.csv in the run's folder of logs, or the next number where there is one.
        """
        model, data, path = session.model, session.datamodule, session.checkpoint.path
        table = PredictionTable(session.run.logs, None if output is None else Path(output))
        writes = not session.config.trainer.fast_dev_run
        rows = _Rows(session, table if writes else None, (target_risk, alpha, target_error))
        session.trainer.callbacks.append(rows)  # type: ignore[attr-defined]
        try:
            with table:
                # Rows are written as they come: nothing is kept of a batch that has been.
                session.trainer.predict(model, data, ckpt_path=path, return_predictions=False, weights_only=True)
                unreadable = data.unreadable if isinstance(data, DataSource) else {}
                rows.add_unreadable({printable(file): reason for file, reason in unreadable.items()})
                written = rows.finish()
        except SystemExit as answer:
            raise stopped_by(answer, _what_is_left(table)) from None
        predicted = counted(rows.count, "prediction")
        session.print(
            f"{predicted}, which are not written"
            if written is None
            else f"{predicted} written to {relative_to_cwd(written)}"
        )
        calibration = model.calibration.get(model.draws)
        if rows.classes:
            accepted = "" if calibration is None else f"; accepted: {rows.accepted:,}"
            session.print(f"Predicted as: {with_counts(rows.classes, most=10)}{accepted}")
        if rule := model.likelihood.decision_rule(calibration, target_risk, alpha, target_error):
            session.print(rule)
        if calibration is not None and (samples := samples_of_calibration(session)):
            session.print(f"That was found with {samples} samples, not with {model.test_samples}.")
        if unreadable:
            session.print(f"Could not be read: {len(unreadable):,}; the last rows say why.")


class _Rows(Callback):
    """Makes rows of each batch that is predicted, and writes them at once.

    Args:
        session: whose model predicts.
        table: that they are written to; None writes nothing.
        rates: see :meth:`bnn_lightning.Likelihood.thresholds`.
    """

    def __init__(self, session: Session, table: PredictionTable | None, rates: tuple[float, float, float | None]):
        self.session, self.table, self.rates = session, table, rates
        self.count, self.accepted = 0, 0
        self.classes: Counter[str] = Counter()
        self._lost: UnwritableError | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model, data = self.session.model, self.session.datamodule
        # The accept rule is searched for once, not for each batch.
        self._thresholds = model.likelihood.thresholds(model.calibration.get(model.draws), *self.rates)
        self._classes = self.session.data_description["class_names"]
        self._knows_labels = isinstance(data, DataSource) and data.knows_labels_of(self._classes)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.received_sigterm:
            raise SIGTERMException  # as Lightning's own loops do, but for that of predict
        data = self.session.datamodule
        start = self.count
        self.count += len(next(iter(outputs.values())))
        if isinstance(data, DataSource):
            names = data.predict_names(start, self.count)
        else:
            names = [str(index) for index in range(start, self.count)]
        labels: Tensor | None = batch[1] if self._knows_labels else None
        predictions = self.session.model.likelihood.predictions(
            {name: values.cpu() for name, values in outputs.items()}, self._classes, self._thresholds, names, labels
        )
        self.classes.update(predictions.counts())
        decided = getattr(predictions, "accepted", None)
        self.accepted += 0 if decided is None else int(decided.sum())
        self._write(lambda table: table.add(predictions), lambda: _texts(predictions))

    def add_unreadable(self, reasons: dict[str, str]) -> None:
        """Rows for files that could not be read."""
        columns = {"file": list(reasons), "error": list(reasons.values())}
        self._write(lambda table: table.add_unreadable(reasons), lambda: columns)

    def finish(self) -> Path | None:
        """The file that was written; None where nothing was to be.

        Raises:
            UnwritableError: when not all of it could be.
        """
        if self._lost is not None:
            raise self._lost
        return None if self.table is None else self.table.finish()

    def _write(self, write: Callable[[PredictionTable], None], columns: Callable[[], dict[str, list]]) -> None:
        if self.table is None:
            return
        first = self._lost is None
        if first:
            try:
                write(self.table)
                return
            except UnwritableError as error:
                self._lost = error
        self.session.print(table_text(columns(), with_header=first).rstrip())  # better on the screen than nowhere


def _texts(predictions: Predictions) -> dict[str, list]:
    return predictions.columns() | {"error": [None] * len(predictions)}


def _what_is_left(table: PredictionTable) -> str:
    return f"The first {table.rows:,} rows are in {relative_to_cwd(table.unfinished)}." if table.rows else ""
