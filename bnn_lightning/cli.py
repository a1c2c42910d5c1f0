"""The command line: ``bnn fit``, ``validate``, ``test``, ``predict``, ``ensemble``, ``prune`` and ``export``."""

import errno
import logging
import math
import os
import re
import secrets
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch import __version__ as lightning_version
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from rich.console import Console
from torchvision import __version__ as torchvision_version

import bnn_lightning
from bnn_lightning import figures, reports
from bnn_lightning.boards import CurveLayout, HyperParameters, PosteriorBoard
from bnn_lightning.callbacks import (
    CollapseGuard,
    EpochBar,
    EpochReport,
    FiniteGuard,
    TrainingStoppedError,
)
from bnn_lightning.checkpoints import (
    KEY,
    CheckpointError,
    check_format,
    epochs_done,
    read_checkpoint,
    write_checkpoint,
)
from bnn_lightning.classifier import BayesianClassifier
from bnn_lightning.data import DataNotFoundError, ImageData
from bnn_lightning.decisions import decisions, in_words
from bnn_lightning.draws import Draws, draws_of
from bnn_lightning.ensembles import first_difference, joined_checkpoint
from bnn_lightning.export import PRUNING_SHARES, export_dense, pruning_sweep
from bnn_lightning.files import InUseError, UnwritableError, require_space, shown
from bnn_lightning.layers import sigma_over_prior
from bnn_lightning.memory import keep_freed_memory
from bnn_lightning.metrics import Estimate
from bnn_lightning.parser import (
    SAMPLING,
    VERBS,
    ParseError,
    Parser,
    configs_first,
    one_sentence,
    shorten_help,
    value_of,
)
from bnn_lightning.pictures import draw_tests
from bnn_lightning.posteriors import THRESHOLD
from bnn_lightning.progress import TrainingSummary
from bnn_lightning.runs import Run
from bnn_lightning.saving import Calibrate, Checkpoints, RunInterruptedError, RunRecord, WholeFiles
from bnn_lightning.schedules import Plateau
from bnn_lightning.settings import (
    UsageError,
    check_length,
    check_limit,
    check_precision,
    fit_network_to_data,
    refuse_nulls,
)
from bnn_lightning.sparsity import by_layer, compression, masks, masks_without
from bnn_lightning.verbs import VerbTrainer

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class StoppedError(Exception):
    """A run was stopped from outside; the message says where it stands and how to go on.

    Args:
        message: a sentence.
        signum: of the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


class CommandLine(LightningCLI):
    """LightningCLI for BayesianClassifier and ImageData, with runs that a checkpoint alone describes."""

    def __init__(self, args: ArgsType = None):
        # A pipe has no width of its own; tables are not to be cut to 80 columns there.
        self.console = Console(width=None if sys.stdout.isatty() else 120)
        self.checkpoint: dict[str, Any] = {}
        super().__init__(
            BayesianClassifier,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False},
            trainer_class=VerbTrainer,
            parser_class=Parser,
            subclass_mode_data=True,
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "verbose", "weights_only"},
            "test": {"model", "dataloaders", "datamodule", "verbose", "weights_only"},
            "predict": {"model", "dataloaders", "datamodule", "return_predictions", "weights_only"},
            "ensemble": {"model", "datamodule"},
            "prune": {"model", "datamodule"},
            "export": {"model", "datamodule"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str | None, default=None, help="Name of the run's folders; null makes one from the config."
        )
        parser.add_argument(
            "--keep_memory",
            type=bool,
            default=True,
            help="Whether glibc keeps freed memory for the next step.",
        )

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        self.parser.usage = f"bnn {{{','.join(VERBS)}}} [options]"
        self.parser.description = "Bayesian convolutional networks by variational inference."
        verbs: Any = self.parser._subcommands_action
        for action in verbs._choices_actions:
            action.help = VERBS[action.dest]
        # A verb with a command line of its own, which __main__ gives it before this parser is built.
        verbs._choices_actions.append(verbs._ChoicesPseudoAction("study", (), VERBS["study"]))
        for action in self.parser._actions:
            if action.dest in ("config", "print_config"):
                vars(action)["hidden"] = True

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        shorten_help(parser, subcommand)
        return parser

    # Before the classes are built

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Puts the checkpoint's own config under everything that is on the command line."""
        words = list(sys.argv[1:] if args is None else args) or ["--help"]
        path = value_of("--ckpt_path", words)
        # Without any data it is the checkpoint's own test set that is predicted.
        self.data_is_given = any(word.startswith(("--data", "--config")) or word == "-c" for word in words)
        if words[0] in self.subcommands() and path is not None:
            try:
                self.checkpoint = read_checkpoint(path)
            except CheckpointError as error:
                raise UsageError(f"--ckpt_path: {error}") from error
            config = self.checkpoint[KEY].get("config")
            if config is None:
                raise UsageError(f"--ckpt_path {path} was saved from Python and holds no config; load it in Python.")
            if words[0] != "fit":
                # Where it trained, how long, and what was saved when, says nothing about where it is tested.
                parts = {part: config[part] for part in ("seed_everything", "name", "model", "data")}
                config = parts | {"trainer": {"precision": config["trainer"]["precision"]}}
            else:
                # The run's folders are where the checkpoint lies; not where a stranger's file would have them.
                config = config | {"trainer": config["trainer"] | {"default_root_dir": None}}
            words[1:1] = ["--config", yaml.safe_dump(config)]
        elif words[0] in self.subcommands() and words[0] != "fit" and not {"-h", "--help"} & set(words):
            raise UsageError(
                f"--ckpt_path is missing: bnn {words[0]} --ckpt_path checkpoints/NAME/version_0/best.ckpt."
            )
        try:
            self.config = parser.parse_args(configs_first(words))
        except UnicodeDecodeError as error:
            raise UsageError("--config must be a YAML file, got one that is not text.") from error
        verb = self.config.get(words[0]) or Namespace()
        seed = verb.get("seed_everything")
        if seed is True:
            verb.seed_everything = _drawn_seed()
        elif isinstance(seed, int) and not 0 <= seed < 2**32:
            raise UsageError(f"--seed_everything must be from 0 to {2**32 - 1}, got {seed}.")

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint's values win over the command line's."""

    def instantiate_classes(self) -> None:
        with self._user_errors():
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        with self._user_errors():
            super()._run_subcommand(subcommand)

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        """Turns exceptions about what was asked for into a UsageError that names the flag."""
        try:
            yield
        except TrainingStoppedError as error:
            raise UsageError(str(error)) from error
        except RuntimeError as error:
            if not str(error).startswith("Error(s) in loading state_dict"):
                raise
            raise UsageError(
                "--ckpt_path does not fit the network or method of the command line; leave --model.* out."
            ) from error
        except Exception as error:
            # A method's settings are checked inside jsonargparse, which wraps what they raise.
            wrapped = re.search(r"- (\w+ must .*)", str(error)) if isinstance(error, ValueError) else None
            if wrapped is None and not _meant_for_the_user(error):
                raise
            message = wrapped[1] if wrapped else str(error)
            raise UsageError(_with_flag(message, self.config[self.subcommand])) from error

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.keeps_memory = config.keep_memory and keep_freed_memory()
        for part, owner in (("model", BayesianClassifier), ("trainer", VerbTrainer)):
            if not isinstance(config[part], Namespace):
                raise UsageError(f"--{part} must be settings by their names, got {config[part]}.")
            refuse_nulls(config[part], owner, part)
        refuse_nulls(Namespace(data=config.data), None, "")
        if config.get("ckpt_path") and not self.checkpoint:
            raise UsageError(f"--ckpt_path {config.ckpt_path} stands in a config; it goes on the command line.")
        if not self.checkpoint:
            with self._user_errors():
                fit_network_to_data(config)
        if self.subcommand == "fit":
            check_length(config)
        check_limit(config.trainer, str(self.subcommand))
        check_precision(config.trainer, config.model.method)
        if self.subcommand in ("predict", "ensemble"):
            if config.trainer.devices not in (1, "1", "auto"):
                raise UsageError(f"--trainer.devices must be 1 for {self.subcommand}, got {config.trainer.devices}.")
            config.trainer.devices = 1
        if config.name is None:
            parts = (config.model.network, config.model.method, config.data)
            names = [part.class_path.split(".")[-1] if part else "deterministic" for part in parts]
            config.name = "_".join(names).lower()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self._get(self.config_init, "trainer")
        if isinstance(self.datamodule, ImageData):
            # Before the run's folders are made: what is wrong with the data shows here.
            self._prepare_data()
        with self._user_errors():
            self.run = self._run_folders(Path(settings.default_root_dir or "."))
        bar = settings.enable_progress_bar is not False and self.console.is_terminal
        callbacks: list[Any] = [EpochBar()] if bar else []
        if self.subcommand == "fit" and not settings.fast_dev_run:
            callbacks += self._fit_callbacks(settings, bar)
        logger = settings.logger
        if logger in (None, True):
            logs = self.run.logs
            # What a run that was killed has drawn beyond its checkpoint is drawn again.
            again = {"purge_step": self.checkpoint["global_step"]} if self._goes_on else {}
            logger = TensorBoardLogger(logs.parent.parent, logs.parent.name, logs.name, **again)
        plugins = settings.plugins if isinstance(settings.plugins, list) else [settings.plugins or WholeFiles()]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, WholeFiles()]
        own = {"logger": logger, "enable_progress_bar": bar, "plugins": plugins}
        try:
            return self._instantiate_trainer(settings.as_dict() | own | kwargs, callbacks)
        except (ValueError, TypeError) as error:
            raise UsageError(f"--trainer: {' '.join(str(error).split())}") from error

    def _run_folders(self, root: Path) -> Run:
        """A resumed or tested checkpoint's own folders; new ones for anything else."""
        path = self.config[self.subcommand].get("ckpt_path")
        run = Run.of_checkpoint(path)
        self._goes_on = self.subcommand == "fit" and run is not None and not self._is_behind(run)
        if run is not None and (self.subcommand != "fit" or self._goes_on):
            return run
        name = self.config[self.subcommand].name if self.subcommand == "fit" else Path(path).stem
        if self._get(self.config_init, "trainer").fast_dev_run:
            return Run(root, name, 0)  # writes nothing
        if getattr(rank_zero_only, "rank", 0) != 0:
            return Run(root, name, 0)  # the first process tells where
        if self.subcommand == "fit":
            # best, last, and the next one while it is being written, each with Adam's two moments.
            needed = 3 * 3 * 4 * sum(parameter.numel() for parameter in self.model.parameters())
            try:
                require_space(root, needed)
            except UnwritableError as error:
                raise UsageError(f"--trainer.default_root_dir {error}") from error
        return Run.reserve(root, name)

    def _is_behind(self, run: Run) -> bool:
        """Whether training has gone further than the checkpoint: that work is not to be written over."""
        last = run.checkpoints / "last.ckpt"
        try:
            return last.is_file() and read_checkpoint(last)["global_step"] > self.checkpoint["global_step"]
        except CheckpointError:
            return True

    def _fit_callbacks(self, settings: Namespace, bar: bool) -> list[Callback]:
        record = self._record()
        callbacks: list[Callback] = [
            EpochReport(self.run.logs, None if bar else lambda line: print(line, flush=True)),
            CurveLayout(),
            PosteriorBoard(),
            FiniteGuard(),
            CollapseGuard(),
            RunRecord(record),
            HyperParameters(record["config"]),
        ]
        if settings.enable_checkpointing is not False:
            every = self.config.fit.save_every_n_steps
            callbacks += [
                Checkpoints(self.run.checkpoints, self.model.kl_weight, every),
                Calibrate(self.run.checkpoints),
            ]
        return callbacks

    def _record(self) -> dict[str, Any]:
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False, format="yaml")
        config = yaml.safe_load(text)
        for own in ("config", "ckpt_path"):
            config.pop(own, None)
        return {
            "config": config,
            "versions": {
                "bnn_lightning": bnn_lightning.__version__,
                "torch": str(torch.__version__),
                "torchvision": torchvision_version,
                "lightning": lightning_version,
                "python": sys.version.split()[0],
            },
        }

    # The verbs

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
            where = "" if self._goes_on else f", in {shown(self.run.checkpoints)}: this run has gone further already"
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
            self._print(f"Checkpoints: {', '.join(map(shown, written))}")
            self._print(f"Curves:      tensorboard --logdir {shown(self.run.logs.parent.parent)}")
            self._print(f"Next:        bnn test --ckpt_path {shown(written[0])}")

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
        return f"Go on with: bnn fit --ckpt_path {shown(last)}" if last.is_file() else "Nothing has been saved."

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
            written += self._picture_of_kept_weights(f"kept_weights_{stem}.png")
        if isinstance(datamodule, ImageData):
            written += self._test_figures(model, datamodule, name, names["samples"])
        self._print(f"Written to {shown(self.run.logs)}: {', '.join(path.name for path in written)}")

    def _calibrated_with_other_samples(self, model: BayesianClassifier) -> int | None:
        """How many samples the calibration was fitted with, where that is not how many there are now."""
        then = self.checkpoint[KEY]["config"]["model"].get("test_samples") or model.test_samples
        then = -(-then // model.members) * model.members
        return None if model.draws == "mean" or then == model.test_samples else then

    def _test_figures(self, model: BayesianClassifier, data: ImageData, name: str, way: str) -> list[Path]:
        """Draws what test saw, as PNG files and on TensorBoard's page of images."""
        numbers = range(model.tested[data.name or "test"]["log_probs"].shape[-1])
        classes = self._description()["class_names"] or [str(number) for number in numbers]
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

    def _picture_of_kept_weights(self, name: str) -> list[Path]:
        """The first linear layer's kept weights over the images that are flattened into it, where there is one."""
        data = self.checkpoint[KEY]["data"] or {}  # a user's own data module describes nothing
        for key, mask in masks(self.model.network).items():
            op = self.model.network.get_submodule(key.removesuffix(".weight")).op
            if mask.dim() != 2:
                continue
            channels = op.in_channels
            if channels == op.in_features:  # no convolution before it: it reads the images, or hidden units
                channels = data.get("channels", 1)
                if op.in_features != channels * data.get("image_size", 0) ** 2:
                    return []
            side = math.isqrt(op.in_features // channels)
            if channels * side * side != op.in_features:
                return []
            path = self.run.logs / name
            title = f"{key.removesuffix('.weight')}: weights kept for each input ({channels} x {side} x {side})"
            figures.kept_weights(path, mask, (channels, side, side), title)
            return [path]
        return []

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
        title = f"{shown(Path(ckpt_path))}: mean weights"
        figures.pruning_curve(figure, [row["removed"] for row in rows], [row["accuracy"] for row in rows], title)
        self._print(f"Written: {', '.join(map(shown, [*written, figure]))}")

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
        self._print(f"Written: {', '.join(map(shown, [path, *written]))}; torch.export.load(FILE).module() loads it")

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
        where = shown(Path(ckpt_path))
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
            self._print(f"{count:,} predictions written to {shown(reports.write_predictions(self.run.logs, rows))}")
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
            raise UsageError(f"--output {shown(file)} is there already; name another file.")
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
        self._print(f"{len(others) + 1} networks of epochs {epochs} written to {shown(file)}")
        self._print(f"Next: bnn test --ckpt_path {shown(file)}")

    def _prepare_data(self) -> None:
        """Loads the images: as the checkpoint's were, and not those that it was trained on."""
        description = self.checkpoint[KEY]["data"] if self.checkpoint and self.subcommand != "fit" else None
        if description is not None:
            labelled = self.subcommand != "predict"
            if labelled and self.datamodule.training_images_of == description["name"]:
                raise UsageError(
                    f"--data {self.datamodule.name}: its images are {description['name']} training images, which this "
                    f"checkpoint may have been trained on; test on --data {description['name']}, or use bnn predict."
                )
            self.datamodule.prepare_like(description, labelled)
            self._refuse_another_split()
        stages: dict[Any, str] = {"prune": "test", "export": "test", "ensemble": "fit"}
        if self.subcommand == "predict" and description is not None:
            self.datamodule.predicts_test_images = not self.data_is_given
        self.datamodule.setup(stages.get(self.subcommand, self.subcommand))

    def _refuse_another_split(self) -> None:
        """On another split the hold-out, or the test set, has images that the checkpoint was trained on."""
        then = self.checkpoint[KEY]["config"]["data"]
        now = self.config[self.subcommand].data
        if now.class_path != then["class_path"] or self.subcommand == "predict":
            return
        of_holdout = self.subcommand in ("validate", "ensemble")
        own = ("seed",) if self.datamodule.splits_test_by_seed else ()
        for name in ("seed", "val_split", "train_subset") if of_holdout else own:
            asked, known = now.init_args.get(name), then["init_args"].get(name)
            if asked != known:
                raise UsageError(
                    f"--data.{name} must be the checkpoint's, {known}, got {asked}; "
                    f"on another split the {'hold-out' if of_holdout else 'test set'} has training images."
                )

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


def main(args: list[str] | None = None) -> int:
    """Runs the command line; 0 when all went well, 2 after one sentence that says what did not."""
    _silence_the_libraries()
    try:
        CommandLine(args)
    except BrokenPipeError:
        # Whoever was reading, such as head, has seen enough; there is nowhere left to say anything.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ParseError, UsageError) as error:
        print(f"bnn: error: {_sentence(error, args)}", file=sys.stderr)
        return 2
    except (StoppedError, KeyboardInterrupt) as error:
        signum = error.signum if isinstance(error, StoppedError) else signal.SIGINT
        if getattr(rank_zero_only, "rank", 0) != 0:
            return 0  # Lightning kills the first process where another one leaves in any other way
        print(f"bnn: {str(error) or 'stopped.'}", file=sys.stderr)
        return 128 + signum  # as the shell has it
    return 0


class _AcceptedError(Exception):
    """Network and data module could be built."""


class _Check(CommandLine):
    """Goes no further than that."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        raise _AcceptedError


def refusal(args: list[str]) -> str:
    """The sentence that ``bnn`` would refuse ``args`` with before it reads any image or writes anything; often none."""
    _silence_the_libraries()
    try:
        _Check(args)
    except _AcceptedError:
        return ""
    except (ParseError, UsageError) as error:
        return _sentence(error, args)
    raise AssertionError("a trainer was built")


def _sentence(error: ParseError | UsageError, args: list[str] | None) -> str:
    return one_sentence(str(error), _verb(args)) if isinstance(error, ParseError) else str(error)


def _drawn_seed() -> int:
    """A seed that nobody chose; the one that the first process has drawn, in the others that Lightning starts."""
    if "LOCAL_RANK" not in os.environ:
        return secrets.randbelow(2**32)
    if "PL_GLOBAL_SEED" not in os.environ:
        raise UsageError("--seed_everything must be a number where torchrun starts several processes, got true.")
    return int(os.environ["PL_GLOBAL_SEED"])


def _verb(args: list[str] | None) -> str:
    """What was asked for; fit, whose help has the most, where that was no verb."""
    words = sys.argv[1:] if args is None else args
    return words[0] if words and words[0] in CommandLine.subcommands() else "fit"


def _silence_the_libraries() -> None:
    """Leaves the screen to what the user asked for: no hardware lines, tips, or deprecations inside libraries."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # inductor asks it for CUDA's folder
    warnings.filterwarnings("ignore", module=r"(lightning|torchmetrics|torch|jsonargparse)\.")


def _meant_for_the_user(error: Exception) -> bool:
    """Whether an exception is about what was asked for; any other is a fault of the program and keeps its traceback."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = isinstance(error, ValueError | ImportError) and raised_in.is_relative_to(Path(__file__).parent)
    return ours or isinstance(error, MisconfigurationException | DataNotFoundError | UnwritableError)


def _with_flag(message: str, config: Namespace) -> str:
    """Writes an argument that a message begins with, such as prior_sigma, as the flag that sets it."""
    if found := re.match(r"(\w+) must ", message):
        keys = [key for key in config.keys(branches=True) if key.split(".")[-1] == found[1]]
        # Where several parts have an argument of that name, it is the one with the value that the message tells.
        keys.sort(key=lambda key: f"got {config[key]}" not in message)
        if keys:
            return f"--{keys[0].replace('init_args.', '')}{message.removeprefix(found[1])}"
    return message
