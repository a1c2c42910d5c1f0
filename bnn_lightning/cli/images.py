"""The images that a verb runs on, and the batch that training begins with: what makes no sense is refused."""

from contextlib import suppress

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule

from bnn_lightning.checkpoints.record import CheckpointError, Record
from bnn_lightning.cli.checkpoint import config_of
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.settings import class_of
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.data import DataSource, ImageFolder
from bnn_lightning.training.module import BayesianModule
from bnn_lightning.training.probe import first_batch, probe
from bnn_lightning.wording import listed


def load_images(
    data: DataSource, verb: Verb, config: Namespace, checkpoint: Record | None, data_is_given: bool
) -> None:
    """Loads the images: as the checkpoint's were, and not those that it was trained on.

    Args:
        data: which is set up.
        verb: that will run on them.
        config: every setting, as it was parsed.
        checkpoint: of ``--ckpt_path``, or None.
        data_is_given: whether the command line says which images, and not the checkpoint alone.
    """
    if checkpoint is None:
        if verb.trains and config.model.init_from is not None:
            with suppress(CheckpointError):  # a file of weights alone, which knows no classes
                data.number_classes_like((Record.read(config.model.init_from).data or {}).get("class_names", []))
    elif checkpoint.data is not None and verb.trains:
        data.number_classes_like(checkpoint.data["class_names"])
        if list(data.class_names) != checkpoint.data["class_names"]:
            raise UsageError(
                f"--data {data.name}: a run goes on with its classes, {listed(checkpoint.data['class_names'])}, got "
                f"{listed(data.class_names)}; for others begin a new one, with --model.init_from."
            )
        _refuse_another_split(data, verb, config.data, config_of(checkpoint)["data"])
        _refuse_other_examples(data, verb, config.data, checkpoint)
    elif checkpoint.data is not None:
        trained_on = checkpoint.data["name"]
        if verb.labelled and data.training_examples_of == trained_on:
            raise UsageError(
                f"--data {data.name}: its images are {trained_on} training images, which this checkpoint may have "
                f"been trained on; test on --data {trained_on}, or use bnn predict."
            )
        data.prepare_like(checkpoint.data, verb.labelled)
        if verb.labelled:
            _refuse_another_split(data, verb, config.data, config_of(checkpoint)["data"])
            _refuse_other_examples(data, verb, config.data, checkpoint)
        has_pool = False
        if verb.unlabelled and isinstance(data, ImageFolder):
            data.leaves_out_labelled = has_pool = True
        if verb.stage == "predict":
            # Without any data it is the checkpoint's own test set that is predicted.
            data.predicts_test_examples = not data_is_given and not has_pool
            if data.predicts_test_examples:
                _refuse_other_examples(data, verb, config.data, checkpoint)
            data.streams_predict = True
    data.setup(verb.stage)


def probe_first_batch(model: BayesianModule, data: LightningDataModule) -> None:
    """Runs the first training batch through the network, and has the likelihood look at outputs and labels.

    Raises:
        ValueError: with what is wrong about them.
    """
    first = first_batch(data, is_set_up=isinstance(data, DataSource))
    if first is not None:
        num_classes = getattr(data, "num_classes", None)
        probe(model.network, model.likelihood, first, num_classes if isinstance(num_classes, int) else None)


def refuse_idle_processes(data: LightningDataModule, processes: int) -> None:
    """Refuses sets of fewer examples than there are processes, some of which would have none."""
    if processes == 1 or not isinstance(data, DataSource):
        return
    sets = {"of training": data.train, "that select": data.selection}
    sets |= {f"of {name}": examples for name, examples in data.test_sets.items()}
    for which, examples in sets.items():
        if examples is not None and 0 < len(examples) < processes:
            raise UsageError(
                f"--trainer.devices must be at most {len(examples)}, the number of examples {which}, got {processes}."
            )


def what_was_found(data: LightningDataModule) -> list[str]:
    """What each source that looks for its images has found, in a few lines: the data, then those of ``ood``."""
    sources = [data, *data.ood] if isinstance(data, DataSource) else []
    return [str(source.found) for source in sources if source.found is not None]


def _refuse_other_examples(data: DataSource, verb: Verb, asked: Namespace, checkpoint: Record) -> None:
    """Where the seed divides a folder or a table that has changed since, the parts have images of one another."""
    then = (checkpoint.data or {}).get("divided_examples")
    of_holdout = verb.stage in ("fit", "validate")
    if then is None or not data.split_settings(of_holdout) or (of_holdout and not verb.trains and not data.val_split):
        return
    trained_on = config_of(checkpoint)["data"]
    place = next((name for name in ("root", "path") if asked.init_args.get(name) is not None), None)
    same_place = place is not None and asked.init_args.get(place) == trained_on["init_args"].get(place)
    now = data.divided_examples or ""
    if asked.class_path == trained_on["class_path"] and same_place and not now.startswith(then):
        cure = "begin a new run" if verb.trains else "train again"
        stays = "a folder test" if place == "root" else "a file of its own, --data.test_path"
        raise UsageError(
            f"--data.{place} {asked.init_args[place]} has changed since the training, and the seed now divides "
            f"other examples: test and hold-out may have those of training. Bring back what was there, or {cure}; a "
            f"test set that is to stay needs {stays}."
        )


def _refuse_another_split(data: DataSource, verb: Verb, asked: Namespace, trained_on: dict) -> None:
    """On another split the hold-out, or the test set, has images that the checkpoint was trained on."""
    of_holdout = verb.stage in ("fit", "validate")
    if of_holdout and getattr(class_of(Namespace(**trained_on)), "training_examples_of", None) == data.name:
        raise UsageError(
            f"--data must be the checkpoint's, {trained_on['class_path'].split('.')[-1]}, got {data.name}, "
            "whose hold-out has its training images."
        )
    if asked.class_path != trained_on["class_path"]:
        return
    for name in data.split_settings(of_holdout):
        value, known = asked.init_args.get(name), trained_on["init_args"].get(name)
        if value != known:
            raise UsageError(
                f"--data.{name} must be the checkpoint's, {known}, got {value}; "
                f"on another split the {'hold-out' if of_holdout else 'test set'} has training images."
            )
