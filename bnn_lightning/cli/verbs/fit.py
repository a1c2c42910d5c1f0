"""Train a network; with --ckpt_path alone, go on where a checkpoint stopped."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import LearningRateFinder

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli.checkpoint import read_given
from bnn_lightning.cli.errors import StoppedError, UsageError
from bnn_lightning.cli.images import refuse_idle_processes
from bnn_lightning.cli.results import findings_text
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import class_name, class_of, method_name
from bnn_lightning.cli.trainer import stopped_by, where_curves_are
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.core.whole_network import describe
from bnn_lightning.data import DataSource
from bnn_lightning.files import InUseError, UnwritableError, as_word, relative_to_cwd
from bnn_lightning.reporting.tables import show_training
from bnn_lightning.reporting.tensorboard import CurveLayout, HyperParameters, PosteriorBoard
from bnn_lightning.training.callbacks import CollapseGuard, EpochReport, FiniteGuard
from bnn_lightning.training.saving import Calibrate, Checkpoints, RunInterruptedError, RunRecord
from bnn_lightning.wording import counted

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class Fit(Verb):
    """Trains, calibrates and saves a network."""

    stage = "fit"
    draws_curves = True
    needs_checkpoint = False
    trains = True

    def check(self, config: Namespace) -> None:
        """A run is a number of whole epochs, because its schedules and its results are by the epoch."""
        trainer = config.trainer
        if config.name is not None and (Path(config.name).name != config.name or config.name in (".", "..")):
            raise UsageError(f"--name must be the name of a folder, without /, got {config.name}.")
        if config.save_every_n_steps is not None and config.save_every_n_steps < 1:
            raise UsageError(f"--save_every_n_steps must be 1 or more, or null, got {config.save_every_n_steps}.")
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise UsageError(
                f"--trainer.max_epochs must be 1 or more, for schedules need its length, got {trainer.max_epochs}."
            )
        if trainer.overfit_batches and issubclass(class_of(config.data), DataSource):
            raise UsageError(
                "--trainer.overfit_batches would take other images in each epoch; --data.train_subset trains on a few."
            )
        if (batches := trainer.accumulate_grad_batches) is not None and batches < 1:
            raise UsageError(f"--trainer.accumulate_grad_batches must be 1 or more, got {batches}.")
        if trainer.max_steps not in (None, -1) or trainer.max_time is not None:
            raise UsageError("--trainer.max_epochs sets a run's length; max_steps and max_time could end in an epoch.")

    def callbacks(self, session: Session) -> list[Callback]:
        if session.config.trainer.fast_dev_run:
            return []
        run = session.run
        callbacks: list[Callback] = [
            EpochReport(run.logs, None if session.shows_progress_bar else session.print),
            CurveLayout(),
            PosteriorBoard(),
            FiniteGuard(),
            CollapseGuard(),
            RunRecord(session.record),
            HyperParameters(session.record["config"]),
        ]
        if session.config.trainer.enable_checkpointing is not False:
            every_n_steps = session.config.save_every_n_steps
            callbacks += [
                Checkpoints(run.checkpoints, session.model.inference, every_n_steps),
                Calibrate(run.checkpoints),
            ]
        return callbacks

    def run(self, session: Session, save_every_n_steps: int | None = None) -> None:
        """Trains.

        Args:
            save_every_n_steps: save last.ckpt also within an epoch, after every so many steps; null saves it between
                epochs.
        """
        model, data, checkpoint = session.model, session.datamodule, session.given_checkpoint
        refuse_idle_processes(data, session.trainer.world_size)
        if checkpoint is not None:
            _check_resume(session, checkpoint)
            model.init_from = None  # all values lie in the run's own checkpoint; the twin's may be gone
            # The rate was found when the run began, and lies in the optimiser's state: a search would begin it anew.
            trainer: Any = session.trainer
            trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, LearningRateFinder)]
        if isinstance(data, DataSource) and len(data.selection) == 0:
            _refuse_what_watches(session)
        session.print(_headline(session))
        if checkpoint is not None:
            elsewhere = f", in {relative_to_cwd(session.run.checkpoints)}: this run has gone further already"
            where = "" if session.is_in_own_folders else elsewhere
            session.print(f"Going on after epoch {checkpoint.epochs_done}, {checkpoint.global_step:,} steps{where}")
        path = None if checkpoint is None else checkpoint.path
        writes = session.trainer.is_global_zero and not session.config.trainer.fast_dev_run
        with _one_sentence(session), session.run.locked() if writes else nullcontext():
            session.trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True if path else None)
        if writes:
            _show_what_is_saved(session)
        elif session.config.trainer.fast_dev_run:
            session.print("It runs. Nothing was written, for --trainer.fast_dev_run only tries.")


def _refuse_what_watches(session: Session) -> None:
    """Refuses what follows validation where there is none."""
    cure = "needs a hold-out to watch; set --data.val_split above 0, or choose one that does not follow validation."
    if session.model.inference.watches_validation:
        raise UsageError(f"--model.inference.lr_schedule {cure}")
    trainer: Any = session.trainer
    for callback in trainer.callbacks:
        is_lightnings = type(callback).__module__.startswith("lightning.")
        if is_lightnings and str(getattr(callback, "monitor", None)).startswith("val/"):
            raise UsageError(f"--trainer.callbacks {type(callback).__name__} {cure}")


def _check_resume(session: Session, checkpoint: Record) -> None:
    if not checkpoint.can_go_on:
        raise UsageError(
            f"--ckpt_path {checkpoint.path} holds no training state: it can be tested, but not gone on with."
        )
    epochs = session.trainer.max_epochs
    done = checkpoint.epochs_done
    if epochs is not None and epochs < done:
        raise UsageError(f"--trainer.max_epochs must be {done} or more, as {checkpoint.path} has, got {epochs}.")
    if checkpoint.is_finished(epochs):
        raise UsageError(
            f"--ckpt_path {checkpoint.path} has finished its {epochs} epochs; go on with a larger --trainer.max_epochs."
        )


@contextmanager
def _one_sentence(session: Session) -> Iterator[None]:
    """Turns what can end a run into a sentence that says how to go on with it."""
    last = session.run.checkpoints / "last.ckpt"

    def how_to_go_on() -> str:
        return f"Go on with: bnn fit --ckpt_path {as_word(last)}" if last.is_file() else "Nothing has been saved."

    try:
        yield
    except InUseError as error:
        path = session.config.ckpt_path
        raise UsageError(f"--ckpt_path {path}: its run is being trained by another process.") from error
    except RunInterruptedError as error:
        raise StoppedError(f"{error}. {how_to_go_on()}", error.signum) from error
    except SystemExit as answer:  # to a second Ctrl-C, or to a signal before the first step
        raise stopped_by(answer, how_to_go_on()) from None
    except OSError as error:
        if error.errno not in _DISK_ERRORS and not isinstance(error, UnwritableError):
            raise
        message = str(error).rstrip(".") if isinstance(error, UnwritableError) else f"{error.strerror}"
        raise UsageError(f"{message}. {how_to_go_on()}") from error


def _show_what_is_saved(session: Session) -> None:
    if session.config.trainer.enable_checkpointing is False:
        session.print("Checkpoints: none, for --trainer.enable_checkpointing is false")
        _show_where_curves_are(session)
        return
    files = [session.run.checkpoints / f"{name}.ckpt" for name in ("best", "last")]
    saved = {file.stem: read_given(file) for file in files if file.is_file()}
    if not saved:
        return
    rows = {
        name: (checkpoint.training, checkpoint.own_validation, (checkpoint.data or {}).get("notes", []))
        for name, checkpoint in saved.items()
        if checkpoint.training is not None
    }
    show_training(session.console, rows, session.model.likelihood.score, type(session.model.inference).__name__)
    model = session.model
    if findings := model.inference.findings(model.network):
        session.print(findings_text(findings))
    paths = [checkpoint.path for checkpoint in saved.values()]
    session.print(f"Checkpoints: {', '.join(map(relative_to_cwd, paths))}")
    _show_where_curves_are(session)
    session.print(f"Next:        bnn test --ckpt_path {as_word(paths[0])}")


def _show_where_curves_are(session: Session) -> None:
    for curves in where_curves_are(session.trainer, session.run.logs):
        session.print(f"Curves:      {curves}")


def _held_out(data: LightningDataModule) -> str:
    """How many examples select the best epoch, and how many are left to calibrate by."""
    if not isinstance(data, DataSource) or data.selection is None or data.calibration is None:
        return ""
    return f" (selection {len(data.selection):,}, calibration {len(data.calibration):,})"


def _headline(session: Session) -> str:
    """What is about to be trained, in a line, and in a second one what of the network is not random or not trained."""
    config = session.config
    network, source, method = class_name(config.model.network), class_name(config.data), method_name(config.model)
    parameters = sum(parameter.numel() for parameter in session.model.network.parameters())
    facts = [
        f"{parameters:,} parameters",
        counted(config.trainer.max_epochs, "epoch"),
        f"seed {config.seed_everything}",
    ]
    if hasattr(session.datamodule, "num_train"):
        facts.insert(1, f"N = {session.datamodule.num_train:,}{_held_out(session.datamodule)}")
    line = f"{network}, {method}, {source}: {', '.join(facts)}"
    layers = describe(session.model.network).layers
    others = [layer for layer in layers if layer.method is None] if session.model.is_bayesian else []
    if others:
        kinds: dict[str, int] = {}
        for layer in others:
            kinds[layer.kind] = kinds.get(layer.kind, 0) + layer.deterministic
        random = sum(layer.random for layer in layers)
        named = ", ".join(f"{kind} {size:,}" for kind, size in kinds.items())
        line += f"\nRandom: {random:,} weights and biases; deterministic: {named}"
    if frozen := sum(value.numel() for value in session.model.network.parameters() if not value.requires_grad):
        line += f"\nFrozen: {frozen:,} of the parameters"
    return line
