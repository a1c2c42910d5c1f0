"""What a verb needs before it begins: config with the checkpoint's under it, images, folders and trainer."""

import os
import secrets
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch import __version__ as lightning_version
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from torchvision import __version__ as torchvision_version

import bnn_lightning
from bnn_lightning.cli.arguments import VerbTrainer
from bnn_lightning.cli.errors import UsageError, user_errors
from bnn_lightning.cli.parser import VERBS, Parser, configs_first, shorten_help, value_of
from bnn_lightning.cli.settings import (
    check_length,
    check_limit,
    check_precision,
    class_of,
    fit_network_to_data,
    refuse_nulls,
)
from bnn_lightning.core.kernels.memory import keep_freed_memory
from bnn_lightning.data import ImageData
from bnn_lightning.files import UnwritableError, require_space
from bnn_lightning.reporting.tensorboard import CurveLayout, HyperParameters, PosteriorBoard
from bnn_lightning.training.callbacks import CollapseGuard, EpochBar, EpochReport, FiniteGuard
from bnn_lightning.training.checkpoints import KEY, CheckpointError, read_checkpoint
from bnn_lightning.training.module import BayesianClassifier
from bnn_lightning.training.runs import Run
from bnn_lightning.training.saving import Calibrate, Checkpoints, RunRecord, WholeFiles


class PreparedCLI(LightningCLI):
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

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Puts the checkpoint's own config under everything that is on the command line."""
        words = list(sys.argv[1:] if args is None else args) or ["--help"]
        path = value_of("--ckpt_path", words)
        # Without any data it is the checkpoint's own test set that is predicted.
        self.data_is_given = _gives_data(words)
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
        elif words[0] in self.subcommands() and words[0] != "fit" and not any(map(_asks_for_help, words)):
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
        with user_errors(self.config[self.subcommand]):
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        with user_errors(self.config[self.subcommand]):
            super()._run_subcommand(subcommand)

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
            with user_errors(config):
                fit_network_to_data(config)
        if self.subcommand == "fit":
            check_length(config)
        check_limit(config.trainer, str(self.subcommand))
        check_precision(config.trainer, config.model)
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
        with user_errors(self.config[self.subcommand]):
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
        of_holdout = self.subcommand in ("validate", "ensemble")
        if of_holdout and getattr(class_of(Namespace(**then)), "training_images_of", None) == self.datamodule.name:
            raise UsageError(
                f"--data must be the checkpoint's, {then['class_path'].split('.')[-1]}, got {self.datamodule.name}, "
                "whose hold-out has its training images."
            )
        if now.class_path != then["class_path"] or self.subcommand == "predict":
            return
        own = ("seed",) if self.datamodule.splits_test_by_seed else ()
        for name in ("seed", "val_split", "train_subset") if of_holdout else own:
            asked, known = now.init_args.get(name), then["init_args"].get(name)
            if asked != known:
                raise UsageError(
                    f"--data.{name} must be the checkpoint's, {known}, got {asked}; "
                    f"on another split the {'hold-out' if of_holdout else 'test set'} has training images."
                )


def _asks_for_help(word: str) -> bool:
    return word == "-h" or word.partition("=")[0].endswith(("--help", ".help", "--print_config"))


def _gives_data(words: Sequence[str]) -> bool:
    """Whether a command line says which images, and not only how they are served."""
    names = {word.partition("=")[0].replace(".init_args", "") for word in words}
    if names & {"--data", "--data.class_path", "--data.root"}:
        return True
    files = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    files += [after for word, after in pairwise(words) if word in ("-c", "--config")]
    try:
        return any("data" in (yaml.safe_load(Path(file).read_text()) or {}) for file in files)
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return True  # the parser says what is wrong with it


def _drawn_seed() -> int:
    """A seed that nobody chose; the one that the first process has drawn, in the others that Lightning starts."""
    if "LOCAL_RANK" not in os.environ:
        return secrets.randbelow(2**32)
    if "PL_GLOBAL_SEED" not in os.environ:
        raise UsageError("--seed_everything must be a number where torchrun starts several processes, got true.")
    return int(os.environ["PL_GLOBAL_SEED"])
