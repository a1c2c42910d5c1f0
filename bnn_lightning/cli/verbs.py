"""``bnn fit``, ``validate``, ``test``, ``predict``, ``ensemble``, ``prune`` and ``export``: what each does."""

import errno
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from bnn_lightning.cli.errors import StoppedError, UsageError
from bnn_lightning.cli.parser import SAMPLING
from bnn_lightning.cli.preparation import PreparedCLI
from bnn_lightning.compression.pruning import PRUNING_SHARES, export_dense, pruning_sweep
from bnn_lightning.compression.sparsity import by_layer, compression, masks, masks_without
from bnn_lightning.core.posteriors import THRESHOLD
from bnn_lightning.core.whole_network import sigma_over_prior
from bnn_lightning.data import ImageData
from bnn_lightning.evaluation.metrics import Estimate
from bnn_lightning.evaluation.sampler import Draws, draws_of
from bnn_lightning.files import InUseError, UnwritableError, relative_to_cwd
from bnn_lightning.inference.learning_rates import Plateau
from bnn_lightning.likelihoods.categorical.decisions import decisions, in_words, names_of_classes
from bnn_lightning.reporting import figures
from bnn_lightning.reporting import tables as reports
from bnn_lightning.reporting.test_figures import draw_kept_weights, draw_tests
from bnn_lightning.training.checkpoints import KEY, check_format, epochs_done, read_checkpoint, write_checkpoint
from bnn_lightning.training.ensembles import first_difference, joined_checkpoint
from bnn_lightning.training.module import BayesianClassifier
from bnn_lightning.training.progress import TrainingSummary
from bnn_lightning.training.saving import RunInterruptedError

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class CommandLine(PreparedCLI):
    """The verbs, each a method; their arguments are those of VerbTrainer's."""

    def fit(
        self,
        model: BayesianClassifier,
        datamodule: LightningDataModule,
        ckpt_path: str | None,
        save_every_n_steps: int | None,
    ) -> None:
        if self.checkpoint:
            self._check_resume(datamodule, ckpt_path)
        watched = datamodule.selection if isinstance(datamodule, ImageData) else None
        if isinstance(model.lr_schedule, Plateau) and watched is not None and len(watched) == 0:
            raise UsageError("--model.lr_schedule Plateau needs a hold-out to watch; set --data.val_split above 0.")
        if ckpt_path:
            model.init_from = None  # all values lie in the run's own checkpoint; the twin's may be gone
        self._print(_headline(self.config.fit, model, datamodule))
        if self.keeps_memory:
            self._print("Freed memory is kept for the next step; --keep_memory false gives it back.")
        if self.checkpoint:
            where = (
                ""
                if self._goes_on
                else f", in {relative_to_cwd(self.run.checkpoints)}: this run has gone further already"
            )
            steps = self.checkpoint["global_step"]
            self._print(f"Going on after epoch {epochs_done(self.checkpoint)}, {steps:,} steps{where}")
        self._train(model, datamodule, ckpt_path)
        if self.config.fit.trainer.fast_dev_run or not self.trainer.is_global_zero:
            return
        written = [
            path for path in (self.run.checkpoints / f"{name}.ckpt" for name in ("best", "last")) if path.is_file()
        ]
        if written:
            records = {path.stem: check_format(read_checkpoint(path)) for path in written}
            rows = {
                name: (
                    TrainingSummary(**record["training"]),
                    record["validation"],
                    (record["data"] or {}).get("notes", []),
                )
                for name, record in records.items()
            }
            reports.show_training(self.console, rows)
            self._print(f"Checkpoints: {', '.join(map(relative_to_cwd, written))}")
            self._print(f"Curves:      tensorboard --logdir {relative_to_cwd(self.run.logs.parent.parent)}")
            self._print(f"Next:        bnn test --ckpt_path {relative_to_cwd(written[0])}")

    def _check_resume(self, datamodule: LightningDataModule, ckpt_path: str | None) -> None:
        if "optimizer_states" not in self.checkpoint:
            raise UsageError(
                f"--ckpt_path {ckpt_path} holds no training state: it can be tested, but not gone on with."
            )
        then, now = self.checkpoint[KEY]["config"]["model"], self.config.fit.model
        for name in ("lr", "rho_lr_factor", "optimizer", "momentum"):
            if then.get(name, now[name]) != now[name]:
                raise UsageError(f"--model.{name} is {then[name]} to the end of a run that goes on, got {now[name]}.")
        # A run may have been killed while it was calibrated, which is all that is left to do then.
        calibrates = isinstance(datamodule, ImageData) and len(datamodule.calibration_dataloader()) > 0
        is_finished = "calibration" in self.checkpoint[KEY] or not calibrates
        if epochs_done(self.checkpoint) >= (self.trainer.max_epochs or 1) and is_finished:
            raise UsageError(
                f"--ckpt_path {ckpt_path} has finished its {self.trainer.max_epochs} epochs; "
                f"go on with a larger --trainer.max_epochs."
            )

    def _train(self, model: BayesianClassifier, datamodule: LightningDataModule, ckpt_path: str | None) -> None:
        weights_only = True if ckpt_path else None
        writes = self.trainer.is_global_zero and not self.config.fit.trainer.fast_dev_run
        try:
            with self.run.locked() if writes else nullcontext():
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only)
        except InUseError as error:
            raise UsageError(f"--ckpt_path {ckpt_path}: its run is being trained by another process.") from error
        except RunInterruptedError as error:
            raise StoppedError(f"{error}. {self._how_to_go_on()}", error.signum) from error
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise StoppedError(f"stopped at once. {self._how_to_go_on()}", signal.SIGINT) from None
        except OSError as error:
            if error.errno not in _DISK_ERRORS and not isinstance(error, UnwritableError):
                raise
            message = str(error).rstrip(".") if isinstance(error, UnwritableError) else f"{error.strerror}"
            raise UsageError(f"{message}. {self._how_to_go_on()}") from error

    def _how_to_go_on(self) -> str:
        last = self.run.checkpoints / "last.ckpt"
        return (
            f"Go on with: bnn fit --ckpt_path {relative_to_cwd(last)}" if last.is_file() else "Nothing has been saved."
        )

    def validate(self, model: BayesianClassifier, datamodule: LightningDataModule, ckpt_path: str) -> None:
        self.trainer.validate(model, datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        count: Any = model.val_metrics["accuracy"].count
        images = int(self.trainer.strategy.reduce(count, reduce_op="sum"))
        if not images:
            raise UsageError(f"--ckpt_path {ckpt_path} was trained without a hold-out to validate on.")
        values = {name: Estimate(value.item()) for name, value in model.val_metrics.compute().items()}
        results = self._results({_samples(model, model.val_samples, "local"): values}, ckpt_path, images)
        if self.trainer.is_global_zero:
            reports.show_evaluation(self.console, results)

    def test(self, model: BayesianClassifier, datamodule: LightningDataModule, ckpt_path: str) -> None:
        self.trainer.test(model, datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        found: Any = model.evaluation
        pooled = f", {model.members} networks" if model.members > 1 else ""
        names = {
            "samples": _samples(model, model.test_samples) + pooled,
            "one_sample": _samples(model, 1),
            "mean_weights": "mean weights",
            "kept_weights": "kept weights",
        }
        measured = {names[way]: row for way, row in found.predictions.items()}
        results = self._results(measured, ckpt_path, found.images) | reports.beyond_the_test_set(found)
        results["sigma_over_prior"] = sigma_over_prior(model.network)
        if found.temperature is None:
            results["marks"].append("not calibrated")
        elif samples := self._calibrated_with_other_samples(model):
            results["marks"].append(f"calibrated with {samples} samples")
        if model.removes_weights:
            results["sparsity"] = self._sparsity(masks(model.network), _below(THRESHOLD))
        if not self.trainer.is_global_zero:
            return
        reports.show_evaluation(self.console, results)
        if self.config.test.trainer.fast_dev_run:
            return
        stem = Path(ckpt_path).stem
        name = f"test_{results['data'].lower()}_{stem}"
        if model.draws != draws_of(model.network):
            name += f"_{model.draws}"  # beside the results of the usual way
        with reports.free_name(self.run.logs, name) as name:
            written = reports.write_evaluation(self.run.logs, name, results)
        if model.removes_weights:
            written.append(reports.write_sparsity(self.run.logs, f"sparsity_{stem}", results["sparsity"]))
            described = self.checkpoint[KEY]["data"] or {}  # a user's own data module describes nothing
            written += draw_kept_weights(self.run.logs / f"kept_weights_{stem}.png", model.network, described)
        if isinstance(datamodule, ImageData):
            written += self._test_figures(model, datamodule, name, names["samples"])
        self._print(f"Written to {relative_to_cwd(self.run.logs)}: {', '.join(path.name for path in written)}")

    def _calibrated_with_other_samples(self, model: BayesianClassifier) -> int | None:
        """How many samples the calibration was fitted with, where that is not how many there are now."""
        then = self.checkpoint[KEY]["config"]["model"].get("test_samples") or model.test_samples
        then = -(-then // model.members) * model.members
        return None if model.draws == "mean" or then == model.test_samples else then

    def _test_figures(self, model: BayesianClassifier, data: ImageData, name: str, way: str) -> list[Path]:
        """Draws what test saw, as PNG files and on TensorBoard's page of images."""
        outputs = model.tested[data.name or "test"]["log_probs"].shape[-1]
        classes = names_of_classes(self._description()["class_names"], outputs)
        drawn = draw_tests(self.run.logs / name, model, data, classes, way)
        for logger in self.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for path in drawn:
                    with Image.open(path) as picture:
                        logger.experiment.add_image(path.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")
        return drawn

    def _sparsity(self, keep: dict[str, torch.Tensor], rule: str) -> dict[str, Any]:
        net = self.model.network
        return reports.sparsity(by_layer(net, keep), compression(net, keep), rule)

    def prune(
        self,
        model: BayesianClassifier,
        datamodule: LightningDataModule,
        ckpt_path: str,
        removed: float | list[float] | None,
    ) -> None:
        shares = PRUNING_SHARES if removed is None else [removed] if isinstance(removed, float | int) else removed
        if not shares:
            raise UsageError("--removed must be a share of the weights, or several, got none.")
        rows = pruning_sweep(model.network, self._loaded(model, datamodule), shares)
        name = f"pruning_{self._description()['name'].lower()}_{Path(ckpt_path).stem}"
        reports.show_pruning(self.console, rows)
        written = reports.write_table(self.run.logs, name, rows)
        figure = self.run.logs / f"{name}.png"
        title = f"{relative_to_cwd(Path(ckpt_path))}: mean weights"
        figures.pruning_curve(figure, [row["removed"] for row in rows], [row["accuracy"] for row in rows], title)
        self._print(f"Written: {', '.join(map(relative_to_cwd, [*written, figure]))}")

    def export(
        self,
        model: BayesianClassifier,
        datamodule: LightningDataModule,
        ckpt_path: str,
        format: str,
        output: str | None,
        removed: float | None,
        threshold: float,
    ) -> None:
        loader = self._loaded(model, datamodule)
        if removed is None and not model.removes_weights:
            raise UsageError(
                "--removed is missing: this method drives no weights to zero by itself; "
                f"bnn prune --ckpt_path {ckpt_path} shows what each share of them costs."
            )
        if removed is None:
            keep, rule = masks(model.network, threshold), _below(threshold)
        else:
            keep = masks_without(model.network, removed)
            rule = f"{100 * (1 - removed):.4g} % of weights with the highest |mu| / sigma"
        path = Path(output) if output else Path(ckpt_path).with_suffix(".pt2")
        record = {"checkpoint": str(ckpt_path), "data": self.checkpoint[KEY]["data"]}
        rows, difference = export_dense(model.network, keep, loader, path, record)
        reports.show_sparsity(self.console, self._sparsity(keep, rule))
        reports.show_export(self.console, rows)
        written = reports.write_table(self.run.logs, f"export_{Path(ckpt_path).stem}", rows)
        self._print(f"Largest difference of a logit between the dense network and the kept weights: {difference:.2g}")
        self._print(
            f"Written: {', '.join(map(relative_to_cwd, [path, *written]))}; torch.export.load(FILE).module() loads it"
        )

    def _loaded(self, model: BayesianClassifier, datamodule: LightningDataModule) -> Any:
        """Puts the checkpoint's weights into ``model`` and gives the test images."""
        if model.members > 1:
            raise UsageError("--ckpt_path is of an ensemble; name the checkpoint of one of its networks.")
        if model.objective == "likelihood":
            raise UsageError("--ckpt_path is of a network whose weights have no signal-to-noise ratio of their own.")
        model.on_load_checkpoint(self.checkpoint)
        model.load_state_dict(self.checkpoint["state_dict"])
        if not isinstance(datamodule, ImageData):
            datamodule.prepare_data()
            datamodule.setup("test")
        loaders = datamodule.test_dataloader()
        return loaders[0] if isinstance(loaders, list) else loaders  # the others are not of the test images

    def _results(self, predictions: dict[str, dict[str, Estimate]], ckpt_path: str, images: int) -> dict[str, Any]:
        """What was measured in each way of predicting, in plain values."""
        method = self.config[self.subcommand].model.method
        method = method.class_path.split(".")[-1] if method else "deterministic"
        where = relative_to_cwd(Path(ckpt_path))
        return reports.evaluation(predictions, self.model.summary, self._description(), images, where, method)

    def predict(
        self,
        model: BayesianClassifier,
        datamodule: LightningDataModule,
        ckpt_path: str,
        target_risk: float,
        alpha: float,
    ) -> None:
        for name, rate in (("target_risk", target_risk), ("alpha", alpha)):
            if not 0 < rate < 1:
                raise UsageError(f"--{name} must be a rate between 0 and 1, such as 0.05, got {rate}.")
        batches: Any = self.trainer.predict(model, datamodule, ckpt_path=ckpt_path, weights_only=True)
        found = {key: torch.cat([batch[key] for batch in batches]).cpu() for key in (batches[0] if batches else ())}
        count = len(found["entropy"]) if found else 0
        names = datamodule.predict_names() if isinstance(datamodule, ImageData) else [str(i) for i in range(count)]
        names = names[:count]  # of --trainer.limit_predict_batches
        calibration = model.calibration.get(model.draws)
        classes = self._description()["class_names"]
        rows = decisions(found, names, classes, calibration, target_risk, alpha) if found else []
        unreadable = datamodule.unreadable if isinstance(datamodule, ImageData) else {}
        rows += [{"file": str(file), "error": reason} for file, reason in unreadable.items()]
        if self.config.predict.trainer.fast_dev_run:
            self._print(f"{count:,} predictions, which are not written")
        else:
            self._print(
                f"{count:,} predictions written to {relative_to_cwd(reports.write_predictions(self.run.logs, rows))}"
            )
        self._print(in_words(calibration, target_risk, alpha))
        if calibration is not None and (samples := self._calibrated_with_other_samples(model)):
            self._print(f"That was found with {samples} samples, not with {model.test_samples}.")
        if unreadable:
            self._print(f"Could not be read: {len(unreadable):,}; the last rows say why.")

    def ensemble(
        self,
        model: BayesianClassifier,
        datamodule: LightningDataModule,
        ckpt_path: str,
        members: list[str],
        output: str | None,
    ) -> None:
        file = Path(output) if output else Path(ckpt_path).with_name("ensemble.ckpt")
        if file.exists():
            raise UsageError(f"--output {relative_to_cwd(file)} is there already; name another file.")
        others = [read_checkpoint(path) for path in members]
        files = [Path(path).resolve() for path in (ckpt_path, *members)]
        for path, other in zip(("", *members), (self.checkpoint, *others), strict=True):
            what = f"--members {path}" if path else f"--ckpt_path {ckpt_path}"
            if path and files.count(Path(path).resolve()) > 1:
                raise UsageError(f"{what} is there twice; an ensemble is of different networks.")
            if (config := other[KEY].get("config")) is None:
                raise UsageError(f"{what} was saved from Python and holds no config to compare.")
            if config["model"].get("members", 1) > 1:
                raise UsageError(f"{what} is an ensemble; name the checkpoints of its networks.")
        for path, other in zip(members, others, strict=True):
            if difference := first_difference(self.checkpoint[KEY], other[KEY]):
                raise UsageError(f"--members {path} differs from --ckpt_path in {difference}; only the seed may.")
        joined = joined_checkpoint([self.checkpoint, *others])
        now = self._record()["config"]["model"]
        joined[KEY]["config"]["model"] |= {name: now[name] for name in SAMPLING if name in now}
        model = BayesianClassifier.of_checkpoint(joined)
        model.trainer = self.trainer
        calibrate_on: Any = getattr(datamodule, "calibration_dataloader", list)()
        calibration = model.calibrated(calibrate_on)
        joined[KEY]["calibration"] = {way: one.record() for way, one in calibration.items()}
        write_checkpoint(joined, file)
        epochs = ", ".join(str(epochs_done(checkpoint)) for checkpoint in (self.checkpoint, *others))
        self._print(f"{len(others) + 1} networks of epochs {epochs} written to {relative_to_cwd(file)}")
        self._print(f"Next: bnn test --ckpt_path {relative_to_cwd(file)}")

    def _description(self) -> dict[str, Any]:
        """What the results say about the data: the tested images' name and notes, the checkpoint's classes."""
        trained = self.checkpoint[KEY]["data"] or {
            "name": type(self.datamodule).__name__,
            "class_names": [],
            "notes": [],
        }
        if not isinstance(self.datamodule, ImageData):
            return trained
        notes = list(dict.fromkeys(trained["notes"] + self.datamodule.notes))
        return {"name": self.datamodule.name, "class_names": trained["class_names"], "notes": notes}

    @rank_zero_only
    def _print(self, line: str) -> None:
        print(line, flush=True)


def _below(threshold: float) -> str:
    """Which weights are kept by their log alpha, in words."""
    return f"weights with log alpha below {threshold:g}"


def _samples(model: BayesianClassifier, count: int, draws: Draws | None = None) -> str:
    """What predicting with ``count`` samples is called on the screen and in files."""
    draws = draws or model.draws
    if not model.is_bayesian or draws == "mean":
        return "mean weights" if model.is_bayesian else "deterministic"
    kind = {"weights": "weight draw", "local": "local draw"}[draws]
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"


def _headline(config: Namespace, model: BayesianClassifier, data: LightningDataModule) -> str:
    """What is about to be trained, in a line."""
    network, method, source = (
        part.class_path.split(".")[-1] if part else "deterministic"
        for part in (config.model.network, config.model.method, config.data)
    )
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    facts = [f"{parameters:,} parameters", f"{config.trainer.max_epochs} epochs", f"seed {config.seed_everything}"]
    if hasattr(data, "num_train"):
        facts.insert(1, f"N = {data.num_train:,}")
    return f"{network}, {method}, {source}: {', '.join(facts)}"
