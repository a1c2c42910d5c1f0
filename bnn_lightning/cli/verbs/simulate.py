"""Simulate a labelling loop on labelled images: buy labels by a rule, train on them, test, and again."""

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from bnn_lightning.acquisition import Rule
from bnn_lightning.cli.errors import StoppedError, UsageError
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import class_of
from bnn_lightning.cli.verbs.acquire import check_samples
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.data import ImageData, Images
from bnn_lightning.files import InUseError, as_word, atomic_write, locked, relative_to_cwd
from bnn_lightning.simulation.learner import Learner, sampler_of
from bnn_lightning.simulation.loop import FILE, TARGETS, Loop, LoopSettings, Retrain
from bnn_lightning.simulation.pool import PoolSettings, make_pool
from bnn_lightning.training.loading import module_of
from bnn_lightning.training.module import BayesianModule

SETTINGS = "simulation.json"


class Simulate(Verb):
    """Measures how many labels a rule needs, on images whose labels are known."""

    stage = "fit"
    needs_checkpoint = False
    one_device = True

    def check(self, config: Namespace) -> None:
        if config.ckpt_path is not None:
            raise UsageError("--ckpt_path must not be given: a loop begins with new weights.")
        if config.model.init_from is not None:
            raise UsageError("--model.init_from must be null: a loop begins with new weights.")
        if config.trainer.precision not in (None, 32, "32", "32-true"):
            got = config.trainer.precision
            raise UsageError(f"--trainer.precision must be 32-true, for a loop trains without a Trainer, got {got}.")
        if not issubclass(class_of(config.data), ImageData):
            raise UsageError("--data must be images with classes, such as MNIST.")
        if config.data.init_args.val_split != 0:
            raise UsageError("--data.val_split must be 0, for a hold-out would be labelled beyond the budget.")
        for name in ("class_weights", "sampling"):
            if (value := config.data.init_args.get(name)) is not None:
                raise UsageError(
                    f"--data.{name} must be null, for it needs labels that are not bought yet, got {value}."
                )
        for name in ("count", "budget", "steps"):
            if config[name] < 1:
                raise UsageError(f"--{name} must be 1 or more, got {config[name]}.")

    def run(
        self,
        session: Session,
        by: Rule = "batchbald",
        count: int = 10,
        budget: int = 200,
        steps: int = 400,
        retrain: Retrain = "afresh",
        per_class: int = 2,
        size: int | None = None,
        copies: int = 1,
        rare: float = 1.0,
        foreign: float = 0.0,
        go_on: str | None = None,
    ) -> None:
        """Buys labels by a rule until the budget is spent. Stopping and tuning use no labelled images.

        Args:
            by: the rule.
            count: labels that are bought at a time.
            budget: labels at the end, those of the start included.
            steps: of the optimiser, in each training; the last epoch is a whole one.
            retrain: whether each training begins with new weights (afresh), or with the last ones (continued).
            per_class: labels of each class at the start.
            size: images in the pool, chosen at random by the seed; null takes all of the training set.
            copies: how often each of them is in it.
            rare: the share of the images of each class of the second half that is in it.
            foreign: pictures of --data.ood in it for each image of a class; they cost a label, and teach nothing.
            go_on: a folder in which a simulation of the same settings was stopped.
        """
        data: Any = session.datamodule
        config = session.record["config"]
        asked = {name: value for name, value in config.items() if name not in ("name", "go_on", "trainer")}
        folder = session.run.logs if go_on is None else Path(go_on)
        _check_settings(folder, asked, go_on)
        seed = config["seed_everything"]
        data.setup("test")
        pool = make_pool(
            data.train, _foreign(data), data.num_classes, PoolSettings(size, copies, rare, foreign, per_class), seed
        )
        if budget < len(pool.start):
            raise UsageError(f"--budget must be at least the {len(pool.start)} labels of the start, got {budget}.")
        model: Any = session.model
        if model.inference.watches_validation:
            raise UsageError("--model.inference.lr_schedule must follow no validation, which would need labels.")
        make = partial(module_of, BayesianModule, {"model": config["model"] | {"members": 1}})
        with torch.random.fork_rng([]):
            check_samples(session, sampler_of([make() for _ in range(model.members)]), by)
        some = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:TARGETS]
        loop = Loop(
            pool,
            data.test,
            data.train[some],
            Learner(make, model.members, data, steps, seed, retrain == "continued"),
            LoopSettings(by, count, budget, seed),
            folder,
            session.print,
        )
        try:
            with locked(folder / ".lock", wait=False):
                atomic_write(folder / SETTINGS, json.dumps(asked, indent=1, sort_keys=True).encode())
                loop.run()
        except InUseError as error:
            raise UsageError(f"--go_on {go_on}: it is being simulated by another process.") from error
        except KeyboardInterrupt:
            how = f"Go on by the same command with --go_on {as_word(folder)}"
            raise StoppedError(f"stopped. {how}", signal.SIGINT) from None
        session.print(f"Rounds: {relative_to_cwd(folder / FILE)}")


def _check_settings(folder: Path, asked: dict[str, Any], go_on: str | None) -> None:
    """Refuses to go on with what was begun with other settings."""
    if go_on is None:
        return
    try:
        then = json.loads((folder / SETTINGS).read_text("utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"--go_on must be a folder of a simulation, got {go_on}, which has no {SETTINGS}.") from None
    for name in asked:
        if json.loads(json.dumps(asked[name])) != then.get(name):
            raise UsageError(f"--go_on {go_on} was begun with another {name}; begin a new simulation.")


def _foreign(data: ImageData) -> Images | None:
    """The pictures of ``--data.ood``, prepared as the others are."""
    loaded = []
    for source in data.ood:
        source.prepare_like(data.describe(), labelled=False)
        loaded.append(source.load_ood().converted(data.in_channels, data.image_size or data.native_size or 0))
    if not loaded:
        return None
    return Images(torch.cat([each.pixels for each in loaded]), torch.cat([each.labels for each in loaded]))
