"""Measure a checkpoint on test images."""

from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.images import refuse_idle_processes
from bnn_lightning.cli.kept_weights import kept_below, sparsity_results
from bnn_lightning.cli.results import evaluation_results, samples_of_calibration, shown_once_written
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.compression.sparsity import masks
from bnn_lightning.core.posteriors import LOG_ALPHA_THRESHOLD
from bnn_lightning.core.whole_network import sigma_over_prior
from bnn_lightning.data import DataSource
from bnn_lightning.evaluation.draws import draws_of
from bnn_lightning.files import relative_to_cwd
from bnn_lightning.likelihoods.categorical.classes import names_of_classes
from bnn_lightning.reporting.cells import title_of
from bnn_lightning.reporting.classes import class_results, write_classes
from bnn_lightning.reporting.report import write_report
from bnn_lightning.reporting.results import free_name, ood_and_corruption_results, write_evaluation, write_sparsity
from bnn_lightning.reporting.tables import show_evaluation
from bnn_lightning.reporting.tensorboard import add_classes
from bnn_lightning.reporting.test_figures import draw_kept_weights, draw_tests


class Test(Verb):
    """Shows and writes the metrics of the test images, of images from elsewhere, and of corrupted ones."""

    stage = "test"
    draws_curves = True

    def check(self, config: Namespace) -> None:
        if config.remark is not None and not config.report:
            raise UsageError("--remark is a paragraph of the report, which is written with --report.")

    def run(self, session: Session, report: bool = False, remark: str | None = None) -> None:
        """Measures a checkpoint on test images.

        Args:
            report: also write report.html, a page with tables, figures, the images it is least sure of and what to do
                next; it takes the place of an earlier one.
            remark: a paragraph of yours at the head of the report.
        """
        path = session.checkpoint.path
        refuse_idle_processes(session.datamodule, session.trainer.world_size)
        session.trainer.test(session.model, session.datamodule, ckpt_path=path, verbose=False, weights_only=True)
        results = _results(session)
        if not session.trainer.is_global_zero:
            return
        with shown_once_written(lambda: show_evaluation(session.console, results)):
            written, figures = ([], {}) if session.config.trainer.fast_dev_run else _write(session, results)
        if not written:
            return
        first, *others = (path.name for path in written)
        start = first.partition(".")[0]
        names = ", ".join([first, *(name.removeprefix(start) for name in others)])
        session.print(f"Written to {relative_to_cwd(session.run.logs)}: {names}")
        if report:
            page = session.run.logs / "report.html"
            write_report(page, results, session.model, session.datamodule, session.checkpoint, figures, remark)
            session.print(f"Report: {relative_to_cwd(page)}")


def _results(session: Session) -> dict[str, Any]:
    """What was measured, in plain values."""
    model = session.model
    evaluation: Any = model.evaluation
    results = evaluation_results(
        session, evaluation.predictions, evaluation.images, model.draws, model.test_samples
    ) | ood_and_corruption_results(evaluation)
    results["sigma_over_prior"] = sigma_over_prior(model.network)
    if model.likelihood.calibration_type is not None and model.calibration.get(model.draws) is None:
        results["caveats"].append("not calibrated")
    elif samples := samples_of_calibration(session):
        results["caveats"].append(f"calibrated with {samples} samples")
    class_names = session.data_description["class_names"]
    test, calibration = next(iter(model.tested.values())), model.calibration.get(model.draws)
    results["caveats"] += model.likelihood.caveats(test.summary, test.labels, calibration, class_names)
    results["caveats"] += [f"{name} not shown to be told from the test images" for name in evaluation.undetected]
    if evaluation.confusion is not None:
        results |= class_results(evaluation.confusion, names_of_classes(class_names, len(evaluation.confusion)))
    if rows := model.likelihood.target_rows(test.summary, test.labels):
        results["per_target"] = rows
    if model.removes_weights:
        results["sparsity"] = sparsity_results(model.network, masks(model.network), kept_below(LOG_ALPHA_THRESHOLD))
    return results


def _write(session: Session, results: dict[str, Any]) -> tuple[list[Path], dict[str, Path]]:
    """Writes tables and figures; gives all files, and the figures by what they show."""
    model, logs, stem = session.model, session.run.logs, session.checkpoint.path.stem
    name = f"test_{results['data'].lower()}_{stem}"
    if model.draws != draws_of(model.network):
        name += f"_{model.draws}"  # beside the results of the usual way
    with free_name(logs, name) as name:
        written = write_evaluation(logs, name, results)
        if "per_class" in results:
            written += write_classes(logs, name, results)
            for logger in _tensorboards(session):
                add_classes(logger, f"{name}_classes", results)
    if model.removes_weights:
        written.append(write_sparsity(logs, f"sparsity_{stem}", results["sparsity"]))
        data = session.checkpoint.data or {}
        written += draw_kept_weights(logs / f"kept_weights_{stem}.png", model.network, data)
    figures: dict[str, Path] = {}
    if isinstance(session.datamodule, DataSource):
        samples = title_of("samples", results["sampling"], results["method"])
        drawn = _draw_figures(session, session.datamodule, name, samples)
        figures = {path.stem.removeprefix(f"{name}_"): path for path in drawn}
    for logger in _tensorboards(session):
        logger.finalize("success")  # what was added after Lightning's own test would be written at some later time
    return written + list(figures.values()), figures


def _draw_figures(session: Session, data: DataSource, name: str, samples: str) -> list[Path]:
    """Draws what test saw, as PNG files and on TensorBoard's page of images."""
    class_names = session.data_description["class_names"]
    drawn = draw_tests(session.run.logs / name, session.model, data, class_names, samples)
    for logger in _tensorboards(session):
        for path in drawn:
            with Image.open(path) as picture:
                logger.experiment.add_image(path.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")
    return drawn


def _tensorboards(session: Session) -> list[TensorBoardLogger]:
    return [logger for logger in session.trainer.loggers if isinstance(logger, TensorBoardLogger)]
