"""LightningCLI for one verb: parses its words, with a checkpoint's config under them, and builds what they ask for."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch import __version__ as lightning_version
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from torchvision import __version__ as torchvision_version

import bnn_lightning
from bnn_lightning.checkpoints.parts import drop_resolved_defaults
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli.checkpoint import config_under_flags, read_given, whose_setting
from bnn_lightning.cli.epoch_bar import EpochBar
from bnn_lightning.cli.errors import StoppedError, UsageError
from bnn_lightning.cli.fitting import fit_network_to_data
from bnn_lightning.cli.fixed_settings import refuse_changes
from bnn_lightning.cli.folders import choose_folders
from bnn_lightning.cli.images import load_images, probe_first_batch, what_was_found
from bnn_lightning.cli.names import base_of
from bnn_lightning.cli.own_code import modules_from, own_classes, where_it_was
from bnn_lightning.cli.parser import ParseError, Parser, flags_of, names_with_first_lines, shorten_help
from bnn_lightning.cli.run_name import run_name
from bnn_lightning.cli.sentences import misspelt, one_sentence
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import check_limit, check_precision, refuse_nulls, seed_of
from bnn_lightning.cli.switching import with_inference_afresh
from bnn_lightning.cli.trainer import (
    check_callbacks,
    check_trainer,
    ended_together,
    has_progress_bar,
    profiler_of,
    silence_the_libraries,
)
from bnn_lightning.cli.user_errors import errors_of_own_code, known_sentence, user_errors
from bnn_lightning.cli.verbs.base import Verb, load_verb
from bnn_lightning.cli.words import (
    asks_for_help,
    configs_first,
    expand_paths,
    gives_data,
    in_todays_words,
    part_of_a_part,
    value_of,
    with_expanded_paths,
    with_switches_on,
)
from bnn_lightning.core.kernels.memory import keep_freed_memory
from bnn_lightning.data import DataNotFoundError, DataSource
from bnn_lightning.files import is_writable, relative_to_cwd
from bnn_lightning.reporting.tensorboard import Board
from bnn_lightning.training.module import BayesianModule
from bnn_lightning.training.saving import AtomicCheckpointIO
from bnn_lightning.wording import one_line

_BOARD_BYTES = 1_000_000  # of a test's curves and figures


def run_verb(class_path: str, name: str, words: list[str]) -> None:
    """Runs the verb of that class, which was asked for by ``name``, with the words that followed."""
    words = with_expanded_paths(words)
    try:
        with modules_from(value_of("--code", words)), errors_of_own_code():
            CommandLine(load_verb(class_path), name, words).run()
    except (StoppedError, KeyboardInterrupt):
        if getattr(rank_zero_only, "rank", 0) == 0:
            raise
        # Any other process leaves in silence: Lightning kills the first one where another fails.


def dry_parse(class_path: str, name: str, words: list[str]) -> None:
    """Raises the UsageError that ``run_verb`` would, if it would before it reads images or writes anything."""
    words = with_expanded_paths(words)
    with modules_from(value_of("--code", words)), errors_of_own_code():
        try:
            _DryParse(load_verb(class_path), name, words)
        except UsageError as error:
            if not isinstance(error.__cause__, DataNotFoundError):  # they may be there when the run begins
                raise


def parser_of(class_path: str, name: str) -> LightningArgumentParser:
    """The parser of the verb of that class, which is called ``name``."""
    try:
        _ParserOnly(load_verb(class_path), name, [])
    except _ParserReady as ready:
        return ready.parser
    raise AssertionError("the parser is raised before anything is parsed")


class CommandLine(LightningCLI):
    """One call of ``bnn VERB``, parsed and built; :meth:`run` has the verb do its work.

    Args:
        verb: what is asked for.
        name: the word that asked for it, which sentences repeat.
        words: those after it.
    """

    def __init__(self, verb: Verb, name: str, words: list[str]):
        silence_the_libraries()
        self.verb, self.name = verb, name
        self.checkpoint: Record | None = None
        super().__init__(
            BayesianModule,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False},
            parser_class=Parser,
            subclass_mode_data=True,
            args=words,
            run=False,  # verbs are not methods of a Trainer; without Lightning's, the config is this verb's own
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def run(self) -> None:
        """Has the verb do its work."""
        arguments = {name: self.config_init[name] for name in self._verb_arguments}
        with self._refusals(), ended_together(self.trainer):
            if self.verb.needs_images(self.config):
                for lines in what_was_found(self.datamodule):
                    self.session.print(lines)
            self.verb.run(self.session, **arguments)

    # Parsing

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        needed = self.verb.needs_checkpoint
        parser.add_argument(
            "--ckpt_path",
            type=str if needed else str | None,
            required=needed,
            help="A checkpoint, or a run's folder of them; its config, with the flags given here on top, is used.",
        )
        self._verb_arguments = parser.add_method_arguments(type(self.verb), "run", as_group=False, skip={"session"})
        settings = signature(type(self.verb).run, eval_str=True).parameters.values()
        self._switches = {f"--{setting.name}" for setting in settings if setting.annotation is bool}
        super().add_default_arguments_to_parser(parser)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Name of the run's folders; null makes one of network, method and data, unless a config's is true.",
        )
        parser.add_argument(
            "--keep_memory",
            type=bool,
            default=True,
            help="Whether glibc keeps freed memory for the next step; false gives it back.",
        )
        parser.add_argument(
            "--code", type=str | None, default=None, help="A folder of your own modules, beside the current one."
        )
        shorten_help(parser, self.verb, self.name)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Puts the checkpoint's own config under everything that is on the command line."""
        words = list(args or [])
        path = value_of("--ckpt_path", words)
        self._data_is_given = gives_data(words)
        notes: list[str] = []
        words = self._words = with_switches_on(in_todays_words(words, notes.append), self._switches)
        for note in dict.fromkeys(notes):
            _note(note)
        if path is not None:
            self.checkpoint = read_given(path, to_go_on=self.verb.trains)
            words = ["--config", yaml.safe_dump(config_under_flags(self.checkpoint, self.verb.trains)), *words]
        elif self.verb.needs_checkpoint and not asks_for_help(words):
            raise UsageError(
                misspelt(words, flags_of(parser), ["ckpt_path"])
                or f"--ckpt_path is missing: bnn {self.name} --ckpt_path checkpoints/NAME/version_0/best.ckpt."
            )
        if (base := base_of(part := part_of_a_part(words))) is not None:
            print(names_with_first_lines(part, base), end="")
            raise SystemExit(0)
        assert isinstance(parser, Parser)
        parser.run_name = self._run_name
        try:
            self.config = parser.parse_args(with_inference_afresh(configs_first(words)))
        except UnicodeDecodeError as error:
            raise UsageError("--config must be a YAML file, got one that is not text.") from error
        except ParseError as error:
            sentence = one_sentence(str(error), self.name, words, flags_of(parser))
            if self.checkpoint is not None and (missing := re.search(r" names ([\w.]+), which cannot", sentence)):
                sentence += where_it_was(self.checkpoint.code, missing[1])
            if self.checkpoint is not None and (unknown := re.match(r"--([\w.]+) is not a setting", sentence)):
                sentence = whose_setting(self.checkpoint, unknown[1], words) or sentence
            raise UsageError(sentence) from error
        expand_paths(self.config)
        self.config.seed_everything = seed_of(self.config.seed_everything)

    def _run_name(self, config: Namespace) -> str | None:
        """The name of the run's folders: of one that goes on its own; a config that is only printed may have none."""
        is_open = config.model.network is None or config.data is None
        if is_open or (self.checkpoint is not None and config.name is not None):
            return config.name
        return run_name(config, self._words)

    # Building

    def before_instantiate_classes(self) -> None:
        config = self.config
        if config.keep_memory:
            keep_freed_memory()
        for group in sorted(self.parser.groups or ()):  # trainer, model, and what is in it
            if config[group] is None:
                raise UsageError(f"--{group} must not be null; leave it out for its defaults.")
            if not isinstance(config[group], Namespace):
                raise UsageError(f"--{group} must be settings by their names, got {config[group]}.")
        refuse_nulls(config.model, BayesianModule, "model")
        refuse_nulls(config.trainer, Trainer, "trainer")
        refuse_nulls(Namespace(data=config.data), None, "")
        for flag, value in (("ckpt_path", self.checkpoint), ("code", value_of("--code", self._words))):
            if config[flag] and value is None:
                raise UsageError(f"--{flag} {config[flag]} stands in a config; it goes on the command line.")
        for own, file in (own_classes(type(self.verb)) | own_classes(config)).items():
            _note(f"{own} is imported from {relative_to_cwd(Path(file))}")
        drop_resolved_defaults(config.model.network, only_classes=True)
        if self.checkpoint is None:
            with user_errors(config):
                fit_network_to_data(config)
        drop_resolved_defaults(config.model.network)
        self.verb.check(config)
        check_limit(config.trainer, self.verb.stage)
        check_trainer(config.trainer)
        if self.verb.trains:
            check_callbacks(config.trainer, config.model)
        check_precision(config.trainer, config.model)
        if self.verb.one_device:
            if config.trainer.devices not in (1, "1", "auto"):
                raise UsageError(f"--trainer.devices must be 1 for {self.name}, got {config.trainer.devices}.")
            config.trainer.devices = 1
        config.name = self._run_name(config)
        if self.checkpoint is not None and (self.verb.trains or self.verb.needs_checkpoint):
            refuse_changes(self.checkpoint, self._record()["config"]["model"], self.verb.trains)

    def instantiate_classes(self) -> None:
        with self._refusals():
            super().instantiate_classes()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Errors about what was asked for, as sentences; what is refused leaves no folders and no number behind."""
        try:
            with user_errors(self.config):
                yield
        except UsageError:
            if hasattr(self, "session"):
                self.session.run.discard()
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        # Images come before the run's folders: what is wrong with them shows while nothing has been written.
        if isinstance(self.datamodule, DataSource) and self.verb.needs_images(self.config):
            load_images(self.datamodule, self.verb, self.config, self.checkpoint, self._data_is_given)
        if self.verb.trains and self.checkpoint is None:
            probe_first_batch(self.model, self.datamodule)
        self.session = session = Session(
            config=self.config,
            record=self._record(),
            model=self.model,
            datamodule=self.datamodule,
            given_checkpoint=self.checkpoint,
            run=choose_folders(self.verb.trains, self.config, self.model, self.checkpoint),
            # A pipe has no width of its own; tables are not to be cut to 80 columns there.
            console=Console(width=None if sys.stdout.isatty() else 120),
        )
        settings = self.config_init.trainer
        own_bar = session.shows_progress_bar and not has_progress_bar(settings)
        callbacks: list[Callback] = [EpochBar()] if own_bar else []
        callbacks += self.verb.callbacks(session)
        plugins = settings.plugins if isinstance(settings.plugins, list) else [settings.plugins or AtomicCheckpointIO()]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, AtomicCheckpointIO()]
        logger = self._logger(session) if settings.logger in (None, True) else settings.logger
        own = {"logger": logger, "plugins": plugins, "profiler": profiler_of(settings)}
        if not has_progress_bar(settings):
            own["enable_progress_bar"] = session.shows_progress_bar
        try:
            session.trainer = self._instantiate_trainer(settings.as_dict() | own | kwargs, callbacks)
        except (ValueError, TypeError) as error:
            raise UsageError(known_sentence(str(error)) or f"--trainer: {one_line(error)}.") from error
        return session.trainer

    def _logger(self, session: Session) -> Board | bool:
        logs = session.run.logs
        if not self.verb.draws_curves:
            return False
        if not self.verb.trains and logs.is_dir() and not is_writable(logs, _BOARD_BYTES):
            return False  # what is measured is still shown; TensorBoard would end the run before
        # What a run that was killed has drawn beyond its checkpoint is drawn again.
        drawn_again = session.checkpoint.global_step if self.verb.trains and session.is_in_own_folders else None
        return Board(logs.parent.parent, logs.parent.name, logs.name, purge_step=drawn_again)

    def _record(self) -> dict[str, Any]:
        config = yaml.safe_load(self.parser.dump(self.config, skip_unset=False, format="yaml"))
        for of_this_call in ("config", "ckpt_path", "code"):
            config.pop(of_this_call, None)
        return {
            "config": config,
            "code": own_classes(self.config),
            "versions": {
                "bnn_lightning": bnn_lightning.__version__,
                "torch": str(torch.__version__),
                "torchvision": torchvision_version,
                "lightning": lightning_version,
                "python": sys.version.split()[0],
            },
        }


class _ParserOnly(CommandLine):
    """Builds the parser, parses nothing, and raises it."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        raise _ParserReady(parser)


class _ParserReady(Exception):  # noqa: N818
    def __init__(self, parser: LightningArgumentParser):
        self.parser = parser


class _DryParse(CommandLine):
    """Parses and builds network and data, then stops."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None


@rank_zero_only
def _note(line: str) -> None:
    print(f"bnn: {line}", file=sys.stderr)
