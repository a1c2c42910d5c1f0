"""A checkpoint of several trained networks as one, from the checkpoints of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.checkpoints.record import KEY, Record, without_training_state

# Of a model, how its samples are drawn and where its first weights came from: members may differ in these.
_FREE = ("sampling", "init_from")


def first_difference(record: Record, other: Record) -> str | None:
    """The first setting of model or data that tells two checkpoints' networks apart by more than their seeds.

    A setting that one of them does not name is one that its release did not have.
    """
    first, second = (_flat_settings(each.config or {}) for each in (record, other))
    for name in sorted(first.keys() & second.keys()):
        if first[name] != second[name]:
            return f"--{name.replace('init_args.', '')} ({first[name]} and {second[name]})"
    return None


def misfit(records: Sequence[Record], first: str) -> tuple[Record, str] | None:
    """The first of ``records`` that is no network of one ensemble with the others, and why; None where all are.

    Args:
        records: of the members.
        first: what the first one is called in a sentence.
    """
    files = [record.path.resolve() for record in records]
    for number, record in enumerate(records):
        if record.path.resolve() in files[:number]:
            return record, "is there twice; an ensemble is of different networks"
        if record.members > 1:
            return record, "is an ensemble; name the checkpoints of its networks"
        if any(_are_equal(record.network_state, earlier.network_state) for earlier in records[:number]):
            return record, "has the weights of another one; networks of an ensemble come from different seeds"
    for record in records[1:]:
        if difference := first_difference(records[0], record):
            return record, f"differs from {first} in {difference}; only the seed may"
        if _have_other_examples(records[0], record):  # and so other units, and a hold-out that the other trained on
            return record, f"was trained when the data of {first} held other examples; train both on the same"
    return None


def _are_equal(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in state.items())


def _have_other_examples(record: Record, other: Record) -> bool:
    """Whether a table or folder of the same place changed between their trainings, as far as both know."""
    shorter, longer = sorted(((each.data or {}).get("divided_examples") or "" for each in (record, other)), key=len)
    return not longer.startswith(shorter)


def joined_checkpoint(records: Sequence[Record]) -> dict[str, Any]:
    """A checkpoint whose network is an Ensemble of those of ``records``, in their order.

    Its training summary has the means of the members' numbers; its config is the first one's with ``members``. It has
    no calibration, which would be that of one network.
    """
    first = records[0]
    joined = without_training_state(first.contents)
    joined["state_dict"] = {
        f"network.members.{member}.{name}": value
        for member, record in enumerate(records)
        for name, value in record.network_state.items()
    }
    config: Any = first.config
    summaries = [asdict(record.training) for record in records if record.training is not None]
    means = {
        name: sum(summary[name] for summary in summaries) / len(summaries)
        for name, value in next(iter(summaries), {}).items()
        if isinstance(value, float)
    }
    own = {
        "config": config | {"model": config["model"] | {"members": len(records)}},
        "training": summaries[0] | means if summaries else None,  # of members saved before their first epoch's end
        "validation": {},
        "calibration": {},
    }
    return joined | {KEY: first.contents[KEY] | own}


def _flat_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of model and data by their dotted names."""
    model = {name: value for name, value in config["model"].items() if name not in _FREE}
    settings = _flat("model", model) | _flat("data", config["data"])
    settings.pop("model.inference.init_args.samples", None)  # of a training step: they say nothing about a network
    own_rate = settings.pop("model.inference.init_args.optimizer.init_args.lr", None)
    if settings.get("model.inference.init_args.lr") is None and own_rate is not None:
        settings["model.inference.init_args.lr"] = own_rate
    return settings


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: inner for part in value for key, inner in _flat(f"{name}.{part}", value[part]).items()}
    # A part that is not there differs from any that is.
    return {name: value, f"{name}.class_path": None} if value is None else {name: value}
