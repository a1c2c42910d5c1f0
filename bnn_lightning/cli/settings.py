"""What a parsed config must be before anything is built from it."""

import os
import secrets
from importlib import import_module
from typing import Any, get_args, get_type_hints

import torch
from jsonargparse import Namespace

from bnn_lightning.cli.errors import UsageError


def class_of(part: Namespace) -> type:
    """The class that a part of a config names."""
    module, name = part.class_path.rsplit(".", 1)
    return getattr(import_module(module), name)


def class_name(part: Namespace | None) -> str:
    """The name of that class without its module; a network without a method is deterministic."""
    return part.class_path.rpartition(".")[2] if part else "deterministic"


def method_name(model: Namespace) -> str:
    """What the weights of a model are random by: its method, or an inference that brings its own; or deterministic."""
    brings_method = getattr(class_of(model.inference), "brings_method", False)
    return class_name(model.inference if model.method is None and brings_method else model.method)


def refuse_nulls(settings: Namespace, owner: Any, where: str) -> None:
    """Refuses null, which jsonargparse takes for anything, for arguments of ``owner`` that cannot be None."""
    try:
        hints = {} if owner is None else get_type_hints(owner.__init__)
    except (NameError, AttributeError, TypeError):  # annotations of somebody else's class that cannot be looked up
        hints = {}
    for name, value in vars(settings).items():
        key = f"{where}.{name}".removeprefix(".")
        hint = hints.get(name, Any)
        if value is None and hint is not Any and type(None) not in get_args(hint):
            raise UsageError(f"--{key} must not be null; leave it out for its default.")
        if isinstance(value, Namespace) and "class_path" in value:
            refuse_nulls(value.get("init_args") or Namespace(), class_of(value), key)


def check_limit(trainer: Namespace, stage: str) -> None:
    """Nothing can be said about no images."""
    name = f"limit_{ {'validate': 'val', 'fit': 'train'}.get(stage, stage) }_batches"
    if trainer.get(name) == 0:
        raise UsageError(f"--trainer.{name} must be above 0, got 0.")


def check_precision(trainer: Namespace, model: Namespace) -> None:
    """Refuses what Lightning would change in silence, what overflows, and what would stop sigma from being learnt."""
    precision = str(trainer.precision)
    if precision in ("16", "16-mixed") and (model.inference.get("init_args") or {}).get("loss_form") == "total":
        raise UsageError(
            f"--model.inference.loss_form must be per_datum with --trainer.precision {precision}, whose numbers end at "
            "65,504, got total."
        )
    cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())
    if precision in ("16", "16-mixed") and cpu:
        raise UsageError(
            f"--trainer.precision {precision} needs a GPU: no CPU computes in fp16; bf16-mixed is its like there."
        )
    # Dropout with a fixed rate learns no noise.
    learns_noise = model.method is not None and getattr(class_of(model.method), "objective", None) != "likelihood"
    if learns_noise and precision in ("16-true", "bf16-true"):
        raise UsageError(
            f"--trainer.precision {precision} is too coarse for rho: at -5 its next number is 0.004 or more away, and "
            "Adam moves it by 0.001 a step; bf16-mixed keeps parameters in float32."
        )
    if getattr(class_of(model.inference), "brings_method", False) and precision in ("16-true", "bf16-true"):
        raise UsageError(
            f"--trainer.precision {precision} is too coarse for the posterior of {class_name(model.inference)}; "
            "bf16-mixed keeps it in float32."
        )


def seed_of(seed: bool | int | None) -> bool | int | None:
    """The seed that a run has: one that is drawn where true asks for any.

    Processes that Lightning starts take that of the first.
    """
    if seed is not True:
        if seed is not None and not 0 <= seed < 2**32:
            raise UsageError(f"--seed_everything must be from 0 to {2**32 - 1}, got {seed}.")
        return seed
    if "LOCAL_RANK" not in os.environ:
        return secrets.randbelow(2**32)
    if "PL_GLOBAL_SEED" not in os.environ:
        raise UsageError("--seed_everything must be a number where torchrun starts several processes, got true.")
    return int(os.environ["PL_GLOBAL_SEED"])
