"""What a checkpoint holds for a run that goes on: random states, and what the epoch at hand has added up so far."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning.pytorch import Trainer

from bnn_lightning.checkpoints.record import FORMAT_VERSION, KEY, RESUME
from bnn_lightning.randomness import combined_seed, random_states, set_random_states
from bnn_lightning.training.progress import EpochSums


@dataclass
class Resume:
    """The state of each process when a checkpoint was saved; empty where no run goes on.

    It is taken up the last of all, at the first batch, after whatever else draws random numbers at a start.
    """

    processes: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_contents(cls, contents: dict[str, Any]) -> "Resume":
        """Of what a checkpoint file holds."""
        return cls(contents.get(RESUME, []))

    def start(self, trainer: Trainer) -> EpochSums | None:
        """To be called when training starts; the sums of an epoch that goes on in the middle."""
        if trainer.world_size > 1:
            # All processes start from one seed, for equal initial weights; from here on each draws noise of its own,
            # and other noise than before where more or fewer of them go on with a run.
            torch.manual_seed(combined_seed(torch.initial_seed(), trainer.global_rank, trainer.global_step))
        if trainer.ckpt_path and self.processes and self.processes[0]["sums"]:
            sums = [process["sums"] for process in self.processes]
            return EpochSums.from_records(sums, trainer.global_rank, trainer.world_size)
        return None

    def take_up(self, trainer: Trainer, device: torch.device, validation: dict[str, float]) -> None:
        """To be called at the first batch.

        Args:
            trainer: of the run.
            device: whose random generator goes on too.
            validation: metrics of the last validation, which may lie behind the step that the run goes on from.
        """
        if self.processes and trainer.ckpt_path:
            if len(self.processes) == trainer.world_size:
                set_random_states(self.processes[trainer.global_rank]["random"], device)
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in validation.items()})
            # Lightning takes the whole epoch for one that was done before, and would not step a plateau after it.
            trainer.fit_loop.restarting = False
        self.processes = []

    def save(self, trainer: Trainer, device: torch.device, sums: EpochSums | None, contents: dict[str, Any]) -> None:
        """Puts the state of all processes into a checkpoint."""
        state = {"random": random_states(device), "sums": sums and sums.record()}
        if trainer.ckpt_path and len(self.processes) == trainer.world_size:
            state = self.processes[trainer.global_rank]  # not taken up yet
        contents[RESUME] = [state]
        if torch.distributed.is_initialized():
            contents[RESUME] *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(contents[RESUME], state)


def put_record(module: Any, contents: dict[str, Any]) -> None:
    """Puts what a module says of its training into a checkpoint."""
    record = contents.setdefault(KEY, {})
    record["format_version"] = FORMAT_VERSION
    record["training"] = None if module.summary is None else asdict(module.summary)
    record["validation"], record["validated_at"] = module.validation, module.validated_at
    describe = getattr(module.trainer.datamodule, "describe", None)
    record["data"] = describe() if describe else None
