"""Write a checkpoint's predictions, their uncertainty and what to make of them to predictions.csv."""

from typing import Any

import torch
from jsonargparse import Namespace

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.results import samples_of_calibration
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import class_of
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.data import DataSource
from bnn_lightning.files import UnwritableError, relative_to_cwd
from bnn_lightning.preprocessing.pictures import shown
from bnn_lightning.reporting.results import predictions_text, write_predictions


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

    def run(
        self, session: Session, target_risk: float = 0.01, alpha: float = 0.05, target_error: float | None = None
    ) -> None:
        """Predicts, with what to make of each prediction.

        Args:
            target_risk: accept as many predictions as keep the error rate among them below this, and abstain from the
                others; by the calibration images, for images like those.
            alpha: the prediction set of an image misses the true class, or the interval of a number the true one, at
                most this often; likewise.
            target_error: where labels are numbers, the largest error that is no mistake, in the units of the target;
                null accepts and abstains from nothing.
        """
        model, data, path = session.model, session.datamodule, session.checkpoint.path
        batches: Any = session.trainer.predict(model, data, ckpt_path=path, weights_only=True)
        calibration = model.calibration.get(model.draws)
        rows: list[dict[str, Any]] = []
        if batches:
            summary = {key: torch.cat([batch[key] for batch in batches]).cpu() for key in batches[0]}
            count = len(next(iter(summary.values())))
            names = data.predict_names() if isinstance(data, DataSource) else [str(index) for index in range(count)]
            names = names[:count]  # of --trainer.limit_predict_batches
            classes = session.data_description["class_names"]
            rows = model.likelihood.decisions(summary, names, classes, calibration, target_risk, alpha, target_error)
        predicted = f"{len(rows):,} predictions"
        unreadable = data.unreadable if isinstance(data, DataSource) else {}
        rows += [{"file": shown(file), "error": reason} for file, reason in unreadable.items()]
        if session.config.trainer.fast_dev_run:
            session.print(f"{predicted}, which are not written")
        else:
            try:
                path = write_predictions(session.run.logs, rows)
            except UnwritableError:
                session.print(predictions_text(rows))  # better on the screen than nowhere
                raise
            session.print(f"{predicted} written to {relative_to_cwd(path)}")
        if rule := model.likelihood.decision_rule(calibration, target_risk, alpha, target_error):
            session.print(rule)
        if calibration is not None and (samples := samples_of_calibration(session)):
            session.print(f"That was found with {samples} samples, not with {model.test_samples}.")
        if unreadable:
            session.print(f"Could not be read: {len(unreadable):,}; the last rows say why.")
