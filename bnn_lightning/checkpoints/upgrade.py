"""Names of earlier releases, in the words of this one: of settings, classes and fields of checkpoints."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import yaml

from bnn_lightning.evaluation.draws import Sampling
from bnn_lightning.inference import Variational

# Settings of the model by the group that they stand in now.
_SETTINGS = {
    "lr": "inference.lr",
    "lr_schedule": "inference.lr_schedule",
    "optimizer": "inference.optimizer",
    "momentum": "inference.optimizer.momentum",
    "rho_lr_factor": "inference.rho_lr_factor",
    "kl_weight": "inference.kl_weight",
    "loss_form": "inference.loss_form",
    "train_samples": "inference.samples",
    "val_samples": "sampling.val_samples",
    "test_samples": "sampling.test_samples",
    "draws": "sampling.draws",
    "predict_chunk": "sampling.chunk",
    "test_seed": "sampling.seed",
}
_WORDS = {
    "optimizer": {"adam": "torch.optim.Adam", "sgd": "torch.optim.SGD"},
    "noise_on": {"W": "weights", "B": "outputs"},
    "format": {"dense": "Pt2", "pt2": "Pt2", "onnx": "Onnx"},
}
# Modules of classes that a config may name.
_MODULES = {
    "bnn_lightning.methods": "bnn_lightning.core.methods",
    "bnn_lightning.posteriors": "bnn_lightning.core.posteriors",
    "bnn_lightning.schedules": "bnn_lightning.inference",
    "bnn_lightning.callbacks": "bnn_lightning.training.callbacks",
}

Say = Callable[[str], None]


def upgraded_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 1 in format 2; what it is made of is not touched."""
    record = dict(checkpoint["bnn_lightning"])
    record["format_version"] = 2
    if isinstance(record.get("config"), dict):
        record["config"] = upgraded_config(record["config"])
    if isinstance(training := record.get("training"), dict) and "num_classes" in training:
        training = dict(training)
        classes = training.pop("num_classes")
        training["score"] = training.pop("accuracy")
        record["training"] = training | {"uninformed_nll": math.log(classes), "uninformed_score": 1 / classes}
    upgraded = dict(checkpoint) | {"bnn_lightning": record}
    if "bnn_lightning_resume" in checkpoint:
        upgraded["bnn_lightning_resume"] = [_upgraded_process(part) for part in checkpoint["bnn_lightning_resume"]]
    return upgraded


def _upgraded_process(part: Mapping[str, Any]) -> dict[str, Any]:
    sums = part["sums"] and dict(part["sums"])
    if sums and "num_classes" in sums:
        sums["num_outputs"] = sums.pop("num_classes")
    return dict(part) | {"sums": sums}


def upgraded_config(config: Mapping[str, Any], say: Say | None = None) -> dict[str, Any]:
    """A config of ``bnn fit``, or a part of one, in today's words.

    Args:
        config: as it was read; not touched.
        say: is told each old name, with the new one.
    """
    upgraded = _upgraded_values(config, say)
    if not isinstance(model := upgraded.get("model"), dict):
        return upgraded
    given = {name: model.pop(name) for name in list(model) if name in _SETTINGS}
    for name in given:
        _note(say, f"model.{name}", f"model.{_SETTINGS[name]}")
    momentum = given.pop("momentum", None)
    for name, value in given.items():
        group, _, key = _SETTINGS[name].partition(".")
        _put(model, group, key, _optimizer_of(value) if name == "optimizer" else value)
    if momentum is not None:
        _put_momentum(model, momentum, say)
    return upgraded


def _optimizer_of(value: Any) -> Any:
    return {"class_path": _WORDS["optimizer"].get(value, value)} if isinstance(value, str) else value


def _put_momentum(model: dict[str, Any], momentum: Any, say: Say | None) -> None:
    """Momentum was a setting of the model; it belongs to torch.optim.SGD now."""
    inference = model.get("inference")
    settings = inference.get("init_args", inference) if isinstance(inference, dict) else {}
    optimizer = _optimizer_of(settings.get("optimizer")) if isinstance(settings, dict) else None
    if isinstance(optimizer, dict) and (momentum or str(optimizer.get("class_path")).endswith("SGD")):
        settings["optimizer"] = optimizer
        optimizer.setdefault("init_args", {}).setdefault("momentum", momentum)
    elif momentum:
        _put(model, "inference", "optimizer", {"class_path": "torch.optim.SGD", "init_args": {"momentum": momentum}})
    elif optimizer is None and say is not None:
        say("model.momentum 0 is left out: set model.inference.optimizer.momentum where torch.optim.SGD is chosen.")


def _put(model: dict[str, Any], group: str, key: str, value: Any) -> None:
    """Sets what the config does not say in today's words already; what is no group is left to the parser."""
    settings = model.get(group)
    if group == "inference":
        if settings is None:
            settings = model["inference"] = {"class_path": "bnn_lightning.Variational"}
        elif isinstance(settings, str):
            settings = model["inference"] = {"class_path": settings}
        if isinstance(settings, dict) and ("class_path" in settings or "init_args" in settings):
            settings = settings.setdefault("init_args", {})
    elif settings is None:
        settings = model[group] = {}
    if isinstance(settings, dict):
        settings.setdefault(key, value)


def _upgraded_values(value: Any, say: Say | None, key: str = "") -> Any:
    """Class paths and single words; a copy."""
    if isinstance(value, Mapping):
        return {name: _upgraded_values(inner, say, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_upgraded_values(inner, say, key) for inner in value]
    if isinstance(value, str):
        new = upgraded_word(key, value)
        if new != value:
            _note(say, value, new)
        return new
    return value


def upgraded_word(name: str, value: str) -> str:
    """The value of a setting: a class path where the class stands now, a word as it is called now."""
    for old, new in _MODULES.items():
        if value.startswith(f"{old}."):
            return f"{new}.{value.rpartition('.')[2]}"
    return _WORDS.get(name, {}).get(value, value)


def upgraded_flag(flag: str) -> str:
    """The name of a flag, such as ``--model.inference.lr`` for ``--model.lr``; any other as it is."""
    start, dot, rest = flag.removeprefix("--model.").partition(".")
    if not flag.startswith("--model.") or start not in _SETTINGS:
        return flag
    return f"--model.{_SETTINGS[start]}{dot}{rest}"


def upgraded_words(words: list[str], say: Say | None = None) -> list[str]:
    """A command line in today's words; what sets a part stands before what sets its settings, wherever it stood."""
    upgraded: list[str] = []
    late: list[str] = []
    flag = ""
    target = upgraded
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flag = upgraded_flag(name)
            if flag != name:
                _note(say, name.removeprefix("--"), flag.removeprefix("--"))
            # An optimizer that is named after its momentum would forget it.
            target = late if flag.startswith("--model.inference.optimizer.") else upgraded
            target.append(f"{flag}{equals}{_value(flag, value, say)}")
        else:
            target.append(_value(flag, word, say))
    return upgraded + late


def _value(flag: str, value: str, say: Say | None) -> str:
    """The value of a flag: a word, or settings in braces."""
    name = flag.rpartition(".")[2].removeprefix("--")
    if not value.startswith(("{", "[")):
        return upgraded_word(name, value)
    try:
        settings = yaml.safe_load(value)
    except yaml.YAMLError:
        return value  # the parser says what is wrong with it
    if flag == "--model" and isinstance(settings, dict):
        upgraded = upgraded_config({"model": settings}, say)["model"]
    else:
        upgraded = _upgraded_values(settings, say, name)
    return value if upgraded == settings else json.dumps(upgraded)


def _note(say: Say | None, old: str, new: str) -> None:
    if say is not None:
        say(f"{old} is called {new} now.")


def upgraded_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model in Python, with those that stand in a group now put there."""
    groups: dict[str, dict[str, Any]] = {"inference": {}, "sampling": {}}
    upgraded = {}
    for name, value in arguments.items():
        if name in _SETTINGS:
            group, _, key = _SETTINGS[name].partition(".")
            groups[group][key] = value
        else:
            upgraded[name] = value
    momentum = groups["inference"].pop("optimizer.momentum", 0.0)
    optimizer = groups["inference"].get("optimizer", "adam")
    if optimizer not in ("adam", "sgd") or (momentum and optimizer == "adam"):
        raise ValueError(f"optimizer must be adam, or sgd with momentum, got {optimizer!r} and {momentum}.")
    if optimizer == "sgd":
        groups["inference"]["optimizer"] = partial(torch.optim.SGD, momentum=momentum)
    else:
        groups["inference"].pop("optimizer", None)
    for group in groups:
        if groups[group] and group in arguments:
            raise ValueError(f"{group} must have all of its settings, got {', '.join(groups[group])} beside it.")
    if groups["inference"]:
        upgraded["inference"] = Variational(**groups["inference"])
    if groups["sampling"]:
        upgraded["sampling"] = Sampling(**groups["sampling"])
    return upgraded
