"""A checkpoint of several trained networks as one, from the checkpoints of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_lightning.training.checkpoints import KEY, without_training_state

# Where members may differ: their runs, their randomness, and how they are sampled.
_FREE = ("init_from", "train_samples", "val_samples", "test_samples", "draws", "predict_chunk", "test_seed")


def first_difference(record: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first setting of model or data that tells two checkpoints' networks apart by more than their seeds."""
    for part in ("model", "data"):
        mine, theirs = (_levelled(part, found["config"][part]) for found in (record, other))
        for name in sorted(mine.keys() | theirs.keys()):
            if name.split(".")[-1] not in _FREE and mine.get(name) != theirs.get(name):
                return f"--{name.replace('init_args.', '')} ({mine.get(name)} and {theirs.get(name)})"
    return None


def joined_checkpoint(checkpoints: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A checkpoint whose network is an Ensemble of those of ``checkpoints``, in their order.

    Its training summary has the means of the members' numbers; its config is the first one's with ``members``.
    """
    joined = without_training_state(dict(checkpoints[0]))
    joined["state_dict"] = {
        f"network.members.{member}.{name.removeprefix('network.')}": value
        for member, checkpoint in enumerate(checkpoints)
        for name, value in checkpoint["state_dict"].items()
    }
    record = dict(joined[KEY])
    record["config"] = record["config"] | {"model": record["config"]["model"] | {"members": len(checkpoints)}}
    summaries = [checkpoint[KEY]["training"] for checkpoint in checkpoints]
    record["training"] = dict(summaries[0])
    for name, value in summaries[0].items():
        if isinstance(value, float):
            record["training"][name] = sum(summary[name] for summary in summaries) / len(summaries)
    record["validation"] = {}
    return joined | {KEY: record}


def _levelled(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: inner for part in value for key, inner in _levelled(f"{name}.{part}", value[part]).items()}
    return {name: value}
