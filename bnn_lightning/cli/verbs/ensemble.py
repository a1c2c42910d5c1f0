"""Put trained networks together as one checkpoint, for test and predict."""

from pathlib import Path

from bnn_lightning.checkpoints.ensembles import joined_checkpoint, misfit
from bnn_lightning.checkpoints.record import KEY, Record, write_checkpoint
from bnn_lightning.cli.checkpoint import read_given
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.files import as_word, relative_to_cwd
from bnn_lightning.shipped import beside
from bnn_lightning.training.loading import from_record
from bnn_lightning.training.module import BayesianModule


class Ensemble(Verb):
    """Writes a checkpoint of several networks, calibrated on what they predict together."""

    stage = "fit"  # for the calibration half of the hold-out
    one_device = True

    def run(self, session: Session, members: list[str], output: str | None = None) -> None:
        """Puts trained networks together, and calibrates what they predict together.

        Args:
            members: the other checkpoints, such as [b.ckpt, c.ckpt], of the same model and data; only seeds may differ.
            output: the file to write; null is ensemble.ckpt beside the first checkpoint.
        """
        first = session.checkpoint
        file = Path(output) if output else beside(first.path, "ensemble.ckpt")
        if file.exists():
            raise UsageError(f"--output {relative_to_cwd(file)} is there already; name another file.")
        others = [read_given(path, "--members") for path in members]
        _check_members(first, others)
        joined = joined_checkpoint([first, *others])
        joined[KEY]["config"]["model"] |= {"sampling": session.config.model.sampling.as_dict()}
        model = from_record(BayesianModule, Record.from_contents(joined))
        model.trainer = session.trainer
        calibrations = model.calibrated(session.datamodule)
        joined[KEY]["calibration"] = {draws: calibration.record() for draws, calibration in calibrations.items()}
        write_checkpoint(joined, file)
        epochs = ", ".join(str(checkpoint.epochs_done) for checkpoint in (first, *others))
        session.print(f"{len(others) + 1} networks of epochs {epochs} written to {relative_to_cwd(file)}")
        session.print(f"Next: bnn test --ckpt_path {as_word(file)}")


def _check_members(first: Record, others: list[Record]) -> None:
    """Refuses checkpoints that are no different networks of one model and data."""
    if found := misfit([first, *others], "--ckpt_path"):
        record, why = found
        raise UsageError(f"{'--ckpt_path' if record is first else '--members'} {record.path} {why}.")
