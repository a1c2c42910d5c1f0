"""What Lightning's own callbacks, profilers and loggers may do in a run, and what is said of them."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelPruning,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import Profiler, PyTorchProfiler
from lightning.pytorch.utilities.exceptions import SIGTERMException

import bnn_lightning
from bnn_lightning.cli.errors import StoppedError, UsageError
from bnn_lightning.cli.names import names_of
from bnn_lightning.cli.settings import class_of
from bnn_lightning.files import as_word, relative_to_cwd
from bnn_lightning.inference import IVON, Inference
from bnn_lightning.wording import hint, nearest

_REFUSED = {
    StochasticWeightAveraging: "puts its averages in after the last validation, so that best.ckpt and last.ckpt would "
    "hold weights that nothing has measured; WeightAveraging and EMAWeightAveraging validate and save theirs",
    BatchSizeFinder: "trains with a batch size that the checkpoint does not know, so that the run could not be gone on "
    "with; give --data.batch_size",
    ModelPruning: "prunes tensors, and a random layer's weight is a posterior; the method Sparse and bnn prune remove "
    "weights",
    BackboneFinetuning: "frees a module called backbone, of which there is none; --model.init_from begins with a "
    "trained network",
    Timer: "could end a run within an epoch; --trainer.max_epochs sets its length",
}
_REFUSED_WITH_A_POSTERIOR_AT_THE_END = {
    EarlyStopping: "could end a run before its posterior is formed, at the end of --trainer.max_epochs; give the "
    "epochs, or train the deterministic twin with it and run bnn laplace on its checkpoint",
    WeightAveraging: "puts its averages in the place of the posterior, which is formed at the end of a run",
}
_REFUSED_WITH_IVON = {
    LearningRateFinder: "tries each rate in a step of the warm-up, which takes a share of it, so that what it finds is "
    "too high; --model.inference.lr is 0.1 unless a hold-out says otherwise",
}
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has the latter alone, which ends a process at once there
_PROFILERS = ("simple", "advanced", "pytorch", "xla")
# Of the rooms of Lightning, those whose lines are the user's: what a finder has found, why training stops, a profile.
_HEARD = ("callbacks", "tuner", "profilers")
_OWN = Path(bnn_lightning.__file__).parent
_PYTHONS_FORMAT = warnings.formatwarning


def check_trainer(trainer: Namespace) -> None:
    """Refuses a run without logs, negative bounds, unknown profilers, and hooks that do not let a network be copied."""
    if trainer.barebones:
        raise UsageError(
            "--trainer.barebones must be false, for a run has a log and checkpoints, got true; to measure the speed of "
            "a step, give --trainer.profiler simple."
        )
    if trainer.gradient_clip_val is not None and trainer.gradient_clip_val < 0:
        raise UsageError(
            f"--trainer.gradient_clip_val must be above 0, or null for no clipping, got {trainer.gradient_clip_val}."
        )
    profiler = trainer.profiler
    if isinstance(profiler, str) and profiler not in _PROFILERS:
        meant = nearest(profiler, [*_PROFILERS, *names_of(Profiler)])
        raise UsageError(
            f"--trainer.profiler must be {', '.join(_PROFILERS)} or the class path of a Profiler, got "
            f"{profiler}{hint(meant)}."
        )
    hooks = isinstance(profiler, Namespace) and profiler.get("init_args", {}).get("record_module_names")
    if hooks and issubclass(class_of(profiler), PyTorchProfiler):
        raise UsageError(
            "--trainer.profiler.record_module_names must be false, for a network with hooks of this kind cannot be "
            "calibrated or tested; --trainer.profiler pytorch sets it."
        )


def check_callbacks(trainer: Namespace, model: Namespace) -> None:
    """Refuses Lightning's callbacks after which a checkpoint would not hold what was trained and measured.

    And those that would watch a metric that nothing logs.
    """
    given = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks or []]
    inference: Any = class_of(model.inference)
    forms_at_end = inference.after_fit is not Inference.after_fit
    unfit = _REFUSED_WITH_A_POSTERIOR_AT_THE_END if forms_at_end else {}
    unfit = unfit | (_REFUSED_WITH_IVON if issubclass(inference, IVON) else {})
    reasons = _REFUSED | {kind: f"is not for {inference.__name__}: it {reason}" for kind, reason in unfit.items()}
    for callback in (each for each in given if isinstance(each, Namespace)):
        kind = class_of(callback)
        for refused, reason in reasons.items():
            if issubclass(kind, refused):
                raise UsageError(f"--trainer.callbacks {kind.__name__} {reason}.")
        monitor = (callback.get("init_args") or Namespace()).get("monitor")
        only_lightnings = all(each.class_path.startswith("lightning.") for each in given if isinstance(each, Namespace))
        if isinstance(monitor, str) and only_lightnings and "/" not in monitor and monitor != "lr":
            # Each name that is logged has a stage in it, unless a callback of somebody's own logs another.
            meant = monitor.replace("_", "/", 1) if monitor.startswith(("val_", "train_")) else "val/nll"
            raise UsageError(
                f"--trainer.callbacks.monitor must be the name of a metric, such as val/nll, val/accuracy or val/loss, "
                f"got {monitor}; did you mean {meant}?"
            )


def has_progress_bar(settings: Namespace) -> bool:
    """Whether a progress bar is among the callbacks that ``settings`` of the Trainer name."""
    given = settings.callbacks if isinstance(settings.callbacks, list) else [settings.callbacks]
    return any(isinstance(callback, ProgressBar) for callback in given)


def profiler_of(settings: Namespace) -> Any:
    """The profiler that ``settings`` of the Trainer ask for."""
    return PyTorchProfiler(record_module_names=False) if settings.profiler == "pytorch" else settings.profiler


def where_curves_are(trainer: Trainer, logs: Path) -> list[str]:
    """How the curves of a run are looked at: with TensorBoard where it was logged to, else by the run's own table."""
    boards = [logger.save_dir for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    lines = [f"tensorboard --logdir {as_word(Path(folder))}" for folder in dict.fromkeys(boards)]
    return lines or [relative_to_cwd(logs / "metrics.csv")]


def stopped_by(answer: SystemExit, what_is_left: str = "") -> StoppedError:
    """The exception that says what Lightning's answer to Ctrl-C or SIGTERM, which ends the process mutely, does not.

    Args:
        answer: its own, whose exit code after SIGTERM is that of success.
        what_is_left: a sentence about what had been done by then.
    """
    signum = signal.SIGTERM if isinstance(answer, SIGTERMException) else signal.SIGINT
    return StoppedError(f"stopped by {signum.name}. {what_is_left}".rstrip(), signum)


@contextmanager
def ended_together(trainer: Trainer) -> Iterator[None]:
    """Has an error end the processes that this one has started, too, and Lightning's answer to a signal say what it is.

    Left to themselves, the others would find the connection closed, and print a traceback below the error's sentence.
    """
    try:
        yield
    except BaseException as error:
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(_KILL)
        if isinstance(error, SystemExit) and trainer.interrupted:  # else it is one of somebody's own verb
            raise stopped_by(error) from None
        raise


def silence_the_libraries() -> None:
    """Leaves the screen to what the user asked for: no hardware lines, tips, or deprecations inside libraries."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for room in _HEARD:
        logging.getLogger(f"lightning.pytorch.{room}").setLevel(logging.INFO)
    for_all_rooms = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    for_all_rooms.setLevel(logging.INFO)
    for_all_rooms.addFilter(_is_heard)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # inductor asks it for CUDA's folder
    warnings.filterwarnings("ignore", module=r"(lightning|torchmetrics|torch|jsonargparse)\.")
    warnings.formatwarning = _as_a_line


def _as_a_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None) -> str:
    """A warning of ours without the place in our code, which says nothing to who reads it; others as they are."""
    if Path(filename).is_relative_to(_OWN) and issubclass(category, UserWarning):
        return f"bnn: {message}\n"
    return _PYTHONS_FORMAT(message, category, filename, lineno, line)


def _is_heard(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or Path(record.pathname).parent.name in _HEARD
