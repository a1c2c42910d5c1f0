"""Names of classes that the command line knows, by the flag that takes them."""

import sys
from inspect import isabstract, signature

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from torch.optim import Optimizer

from bnn_lightning.core.methods import Method
from bnn_lightning.core.posteriors import WithPrior
from bnn_lightning.core.priors import Prior
from bnn_lightning.data import DataSource, ImageData
from bnn_lightning.deployment import ExportFormat
from bnn_lightning.inference import Inference, KLWeight, LRSchedule
from bnn_lightning.likelihoods import Likelihood
from bnn_lightning.networks import Network

# What is chosen by name, and the class that all names of a kind belong to.
PARTS: dict[str, type] = {
    "model.network": Network,
    "model.method": Method,
    "model.method.prior": Prior,
    "model.method.posterior": WithPrior,  # the others are made by methods of their own
    "model.inference": Inference,
    "model.inference.kl_weight": KLWeight,
    "model.inference.lr_schedule": LRSchedule,
    "model.likelihood": Likelihood,
    "data": DataSource,
    "format": ExportFormat,
}
_OF_LIBRARIES: dict[str, type] = {
    "model.inference.optimizer": Optimizer,
    "trainer.callbacks": Callback,
    "trainer.logger": Logger,
    "trainer.profiler": Profiler,
}


def whole_key(key: str) -> str:
    """The key of a setting of which a nested parser knows the last word alone: model.inference.lr_schedule."""
    return next((known for known in (*PARTS, *_OF_LIBRARIES) if known.endswith(f".{key}")), key)


def base_of(key: str) -> type | None:
    """The class that all names belong to which the setting ``key`` takes, such as model.network, or a list of them."""
    return {"data.ood": ImageData, **PARTS, **_OF_LIBRARIES}.get(key)


def classes_of(base: type) -> list[type]:
    """Those subclasses of ``base`` that can be named and are of the same package as it is."""
    package = base.__module__.partition(".")[0]
    found: dict[type, None] = {}
    subclasses: list[type] = base.__subclasses__()
    for sub in subclasses:
        if not isabstract(sub) and not sub.__name__.startswith("_") and sub.__module__.startswith(f"{package}."):
            found[sub] = None
        found |= dict.fromkeys(classes_of(sub))
    return [sub for sub in found if sub.__module__.startswith(f"{package}.")]


def names_of(base: type) -> list[str]:
    """The names that the command line knows for a kind of part, such as the methods."""
    return sorted({sub.__name__ for sub in classes_of(base)})


def class_called(name: str | None, key: str) -> type | None:
    """The class that the setting ``key`` takes by this name, or by the path of a module that has been imported."""
    module, _, last = (name or "").rpartition(".")
    base = base_of(key)
    if module or base is None:
        found = getattr(sys.modules.get(module), last, None)
        return found if isinstance(found, type) else None
    return next((sub for sub in classes_of(base) if sub.__name__ == name), None)


def settings_of(part: type) -> set[str]:
    """The names of a class's settings."""
    return set(signature(part).parameters)


def settings_of_any(key: str) -> set[str]:
    """The names of the settings of all classes that the setting ``key`` takes."""
    base = base_of(key)
    return set().union(*map(settings_of, classes_of(base))) if base else set()
