"""The folders that the results of a verb go to."""

from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli.checkpoint import read_given
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.files import UnwritableError, require_space
from bnn_lightning.training.module import BayesianModule
from bnn_lightning.training.runs import Run


def choose_folders(trains: bool, config: Namespace, model: BayesianModule, checkpoint: Record | None) -> Run:
    """The folders of the checkpoint's own run; new ones where there is none, or where training would go back in it.

    What a verb that does not train says of a checkpoint that lies in no run goes into one folder by the file's name.

    Args:
        trains: whether the verb writes checkpoints.
        config: every setting, as it was parsed.
        model: what would be saved.
        checkpoint: of ``--ckpt_path``, or None.
    """
    own = None if checkpoint is None else Run.from_checkpoint(checkpoint.path)
    if own is not None and checkpoint is not None and not (trains and _is_behind(checkpoint, own)):
        return own
    root = Path(config.trainer.default_root_dir or ".")
    name = config.name if trains or checkpoint is None else checkpoint.path.stem
    if config.trainer.fast_dev_run or getattr(rank_zero_only, "rank", 0) != 0:
        return Run(root, name, 0)  # nothing is written, or the first process tells the others where
    if not trains and checkpoint is not None:
        # One folder for all results of a checkpoint that lies in no run, such as one that comes with the package. It is
        # made once there is a result: bnn predict --output elsewhere needs none.
        return Run(root, name, 0)
    if trains:
        # best, last, and the next one while it is being written, each with Adam's two moments.
        numbers = 3 * sum(parameter.numel() for parameter in model.parameters())
        needed = 3 * 4 * (numbers + sum(buffer.numel() for buffer in model.buffers()))
        try:
            require_space(root, needed)
        except UnwritableError as error:
            raise UsageError(f"--trainer.default_root_dir {error}") from error
    return Run.reserve(root, name)


def _is_behind(checkpoint: Record, run: Run) -> bool:
    """Whether the run has gone further than the checkpoint: that work is not to be written over."""
    last = run.checkpoints / "last.ckpt"
    try:
        return last.is_file() and read_given(last).global_step > checkpoint.global_step
    except UsageError:  # it cannot be read, and may be worth something to somebody who can
        return True
