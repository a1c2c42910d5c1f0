"""A labelling loop: buys labels by a rule, trains on them, and writes a row after each round, so that it can go on."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bnn_lightning.acquisition import Rule, acquire
from bnn_lightning.data import Images
from bnn_lightning.files import atomic_write, write_rows
from bnn_lightning.randomness import combined_seed
from bnn_lightning.simulation.learner import Learner
from bnn_lightning.simulation.pool import FOREIGN, Pool

Retrain = Literal["afresh", "continued"]
TARGETS = 200
FILE = "rounds.csv"


@dataclass(frozen=True)
class LoopSettings:
    """How labels are bought.

    Args:
        by: the rule.
        count: labels that are bought at a time.
        budget: labels at the end, those of the start included.
        seed: of the loop.
    """

    by: Rule
    count: int
    budget: int
    seed: int


class Loop:
    """Rounds of training, testing and buying labels. No labelled image beyond those bought is looked at but for tests.

    Args:
        pool: images, some of them labelled.
        test: images on which accuracy and NLL are measured.
        targets: images without labels that ``epig`` asks about.
        learner: is trained in each round.
        settings: how labels are bought.
        folder: of ``rounds.csv`` and, where training goes on from the last weights, of these. What is there is gone on
            with, and ends as if it had not been stopped.
        say: prints a line.
    """

    def __init__(
        self,
        pool: Pool,
        test: Images,
        targets: Images,
        learner: Learner,
        settings: LoopSettings,
        folder: Path,
        say: Callable[[str], None],
    ):
        self.pool, self.test, self.targets, self.learner = pool, test, targets, learner
        self.settings, self.folder, self.say = settings, folder, say

    def run(self) -> list[dict[str, Any]]:
        """Runs to the end of the budget, and gives the rows of all rounds."""
        rows, labelled = self._what_is_there()
        while not rows or rows[-1]["next"]:
            start = time.monotonic()
            number, classes = len(rows), self.pool.images.labels[labelled]
            self.learner.fit(self.pool.images[labelled[classes != FOREIGN]], number)
            row: dict[str, Any] = {"labels": len(labelled), "foreign": int((classes == FOREIGN).sum())}
            row |= self._tested()
            chosen = self._chosen(labelled, number)
            labelled = torch.cat([labelled, chosen])
            row |= {"seconds": round(time.monotonic() - start, 2), "next": " ".join(map(str, chosen.tolist()))}
            rows.append(row)
            if self.learner.continued:
                self._keep_weights(number)
            write_rows(self.folder / FILE, list(row), rows)
            self.say(
                f"{row['labels']} labels: {100 * row['accuracy']:.2f} %, NLL {row['nll']:.3f}, {row['seconds']:.1f} s"
            )
        return rows

    def _tested(self) -> dict[str, float]:
        outputs = self.learner.outputs(self.test)
        assert self.learner.modules is not None
        likelihood: Any = self.learner.modules[0].likelihood
        log_probs = torch.cat([likelihood.predictive(part)["log_probs"] for part in outputs.split(1000, 1)])
        labels = self.test.labels
        return {
            "accuracy": (log_probs.argmax(-1) == labels).double().mean().item(),
            "nll": -log_probs[torch.arange(len(labels)), labels].double().mean().item(),
        }

    def _chosen(self, labelled: Tensor, number: int) -> Tensor:
        count = min(self.settings.count, self.settings.budget - len(labelled))
        is_free = torch.ones(len(self.pool.images), dtype=torch.bool)
        is_free[labelled] = False
        free = is_free.nonzero().flatten()
        if count <= 0 or len(free) == 0:
            return labelled[:0]
        by, seed = self.settings.by, combined_seed(self.settings.seed, number)
        if by == "random":  # needs no outputs
            return free[torch.randperm(len(free), generator=torch.Generator().manual_seed(seed))[:count]]
        outputs = self.learner.outputs(self.pool.images[free])
        targets = self.learner.outputs(self.targets) if by == "epig" else None
        return free[acquire(outputs, count, by, targets, seed).images]

    def _what_is_there(self) -> tuple[list[dict[str, Any]], Tensor]:
        """The rows of an interrupted run, and which images are labelled after them."""
        labelled = self.pool.start
        if not (self.folder / FILE).is_file():
            return [], labelled
        rows = [_values(row) for row in csv.DictReader((self.folder / FILE).read_text("utf-8").splitlines())]
        if self.learner.continued and rows and rows[-1]["next"]:
            states = torch.load(self._weights(len(rows) - 1), weights_only=True)
            self.learner.modules = [self.learner.make() for _ in states]
            for module, state in zip(self.learner.modules, states, strict=True):
                module.load_state_dict(state)
        for row in rows:
            labelled = torch.cat([labelled, torch.tensor(list(map(int, row["next"].split())), dtype=torch.int64)])
        return rows, labelled

    def _weights(self, number: int) -> Path:
        return self.folder / f"weights_{number}.pt"

    def _keep_weights(self, number: int) -> None:
        """Before the round's row: one that is there has its weights. Those of the round before are the last's to go."""
        assert self.learner.modules is not None
        contents = io.BytesIO()
        torch.save([module.state_dict() for module in self.learner.modules], contents)
        atomic_write(self._weights(number), contents.getvalue())
        self._weights(number - 2).unlink(missing_ok=True)


def _values(row: dict[str, str]) -> dict[str, Any]:
    """A row as it was before it was text."""
    counts = {name: int(row[name]) for name in ("labels", "foreign")}
    return counts | {name: float(row[name]) for name in ("accuracy", "nll", "seconds")} | {"next": row["next"]}
