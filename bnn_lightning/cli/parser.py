"""The command line's parser: help that fits on a screen or two, and errors raised instead of printed."""

import argparse
import re
import sys
from difflib import get_close_matches
from inspect import isabstract, signature
from numbers import Number
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter, Namespace
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from bnn_lightning.cli.settings import class_name, class_of
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.core.methods import Method
from bnn_lightning.core.posteriors import Posterior
from bnn_lightning.core.priors import Prior
from bnn_lightning.data import ImageData
from bnn_lightning.deployment import ExportFormat
from bnn_lightning.inference import Inference, KLWeight, LRSchedule
from bnn_lightning.likelihoods import Likelihood
from bnn_lightning.networks import Network

# What is chosen by name, and the class that all names of a kind belong to.
PARTS: dict[str, type] = {
    "model.network": Network,
    "model.method": Method,
    "model.method.prior": Prior,
    "model.method.posterior": Posterior,
    "model.inference": Inference,
    "model.inference.kl_weight": KLWeight,
    "model.inference.lr_schedule": LRSchedule,
    "model.likelihood": Likelihood,
    "data": ImageData,
    "format": ExportFormat,
}

# Of the Trainer's 41 arguments, those that help shows.
_TRAINER_ARGUMENTS = {
    "max_epochs": "Epochs to train.",
    "accelerator": "One of cpu, gpu, mps and others, or auto.",
    "devices": "How many devices, or which.",
    "num_nodes": "How many machines.",
    "precision": "32-true, bf16-mixed, 16-mixed, 64-true; null is 32-true.",
    "accumulate_grad_batches": "Batches to a step of the optimiser.",
    "deterministic": "Only deterministic algorithms.",
    "fast_dev_run": "One batch of everything, to see whether it runs.",
    "default_root_dir": "Where lightning_logs/ and checkpoints/ go; null is the current folder.",
}


def _as_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Number):
        raise ValueError(f"{value} is no number")
    return value


# Arguments of torchvision's transforms have this type, such as angles; jsonargparse alone could not write their values.
register_type(Number, serializer=_as_number, deserializer=_as_number, fail_already_registered=False)

# Help in our words where an argument comes from elsewhere.
_HELP = {
    "data": "The images.",
    "seed_everything": "Seed of initial weights and noise; true draws one.",
    "config": "A config file; flags win over it, and later files over earlier ones.",
    "help": "Show this help.",
}

# Titles of help's groups, by how the names of their arguments begin; the first that fits counts.
_TITLES = {"trainer": "Trainer", "model.sampling": "Sampling", "model": "Model", "data": "Data"}

_KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
_BOILERPLATE = ("Does not validate against any", "Subtypes:", "Errors:", "Given value", "- Expected a path but")


class ParseError(ValueError):
    """What jsonargparse found wrong with the command line, in its own words; :func:`one_sentence` has ours."""


class ShortHelp(DefaultHelpFormatter):
    """Says what an argument is for and its default; not its type, which the words and the default tell.

    An action marked ``hidden`` is left out of the page only: one whose help is argparse's SUPPRESS would be left out of
    dumped configs too.
    """

    def add_argument(self, action: argparse.Action) -> None:
        if not getattr(action, "hidden", False):
            super().add_argument(action)

    def __init__(self, prog: str, **kwargs: Any):
        super().__init__(prog, max_help_position=32, width=110, **kwargs)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = (action.help or "").strip()
        if not text.endswith((".", ")")):
            text += "."
        text = text[:1].upper() + text[1:]
        if action.required and action.option_strings:
            return f"{text} (required)"
        shown = action.option_strings and action.nargs != 0 and action.default is not argparse.SUPPRESS
        if not shown or action.dest in ("config", "help"):
            return text
        return f"{text} (default: {class_name(action.default) if _is_class(action.default) else '%(default)s'})"


class Parser(LightningArgumentParser):
    """Raises its errors instead of printing a usage and leaving."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, formatter_class=ShortHelp, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ParseError(message) from ex

    def print_usage(self, file: Any = None) -> None:
        """Nothing: an error is one sentence."""


def _is_class(value: Any) -> bool:
    """Whether the value of a setting names a class."""
    return isinstance(value, Namespace) and "class_path" in value


def names_of(base: type) -> list[str]:
    """The names that the command line knows for a kind of part, such as the methods."""
    names: list[str] = []
    subclasses: list[type] = base.__subclasses__()
    for sub in subclasses:
        if not isabstract(sub) and not sub.__name__.startswith("_") and sub.__module__.startswith("bnn_lightning."):
            names.append(sub.__name__)
        names += names_of(sub)
    return sorted(names)


def shorten_help(parser: LightningArgumentParser, verb: Verb, name: str) -> None:
    """Leaves in the help of ``bnn NAME`` what its user needs, and says where the rest is."""
    checkpoint = "--ckpt_path FILE" if verb.needs_checkpoint else "[--ckpt_path FILE]"
    parser.usage = f"bnn {name} {checkpoint} [--config FILE] [options]"
    parser.description = (sys.modules[type(verb).__module__].__doc__ or "").partition("\n")[0]
    parser.epilog = (
        f"Names are those listed, or the class path of your own. The settings of a part: bnn {name} --data.help MNIST, "
        "--model.method.help LRT, --model.inference.help Variational. Other arguments of lightning.pytorch.Trainer go "
        "as --trainer.NAME, but for max_steps and max_time: a run is whole epochs. --print_config shows all values."
    )
    for action in parser._actions:
        part, _, argument = action.dest.rpartition(".")
        action.help = _HELP.get(action.dest, action.help)
        if action.dest in PARTS:
            names = ", ".join(names_of(PARTS[action.dest]))
            action.help = f"{(action.help or '').strip().rstrip('.')}. Names: {names}."
            if _is_class(action.default):
                settings = ", ".join(signature(class_of(action.default)).parameters)
                action.help += f" Settings of {class_name(action.default)}: {settings}." if settings else ""
            action.metavar = "NAME"
        elif action.metavar is None and action.choices is None and action.nargs != 0:
            # The argument's name in capitals would take a line of its own.
            action.metavar = "FILE" if action.dest in ("config", "ckpt_path") else "VALUE"
        if part == "trainer" and argument in _TRAINER_ARGUMENTS:
            action.help = _TRAINER_ARGUMENTS[argument]
            action.option_strings = action.option_strings[:1]
        vars(action)["hidden"] = _is_hidden(verb, action.dest)
    for group in parser._action_groups:
        dests = [action.dest for action in group._group_actions]
        titles = (title for start, title in _TITLES.items() if any(dest.startswith(start) for dest in dests))
        group.title = next(titles, "Options")


def _is_hidden(verb: Verb, dest: str) -> bool:
    """Whether help leaves an argument out: the user of this verb has no choice there, or hardly ever."""
    part, _, argument = dest.rpartition(".")
    if dest in ("trainer", "model", "model.sampling", "print_config") or argument == "help":
        return True
    if part == "trainer":
        of_training = argument in ("max_epochs", "accumulate_grad_batches")
        return argument not in _TRAINER_ARGUMENTS or (of_training and not verb.trains)
    if verb.needs_checkpoint:
        return part == "model"  # a checkpoint brings its model: only model.sampling is still a choice
    # The first two mean nothing to a network that is yet to be trained; members comes with the checkpoint of an
    # ensemble, and what lets a fault through is named by the error.
    rare = ("sampling.draws", "sampling.chunk", "members", "allow_shared_statistics")
    return dest.removeprefix("model.") in rare


def one_sentence(message: str, verb: str = "fit") -> str:
    """What jsonargparse says about a value given to ``bnn VERB``, in one sentence with the flag, value and cure."""
    if match := re.search(r"arguments are required: (.*)", message):
        names = match[1].split(", ")
        missing = " and ".join(f"--{name}" for name in names)
        if "data" in names or "model.network" in names:
            return f"{missing} missing; start from a config, such as bnn fit --config configs/3conv3fc_lrt.yaml."
        return f"{missing} missing; bnn {verb} --help says what it is."
    # What stands in a config file is named as its flag would be.
    flag = "--" + ".".join(re.findall(r'Parser key "([\w.]+)"', message)).removeprefix("config.")
    if match := re.search(r"Option '(\w+)' is not accepted", message):
        return f"{flag}.{match[1]} is not a setting; bnn {verb} {flag}.help NAME lists those of NAME."
    if match := re.search(r"Problem with given class_path '([\w.]+)':\s*(.*)", message):
        return f"{flag} names {match[1]}, which cannot be imported: {match[2].rstrip('.')}."
    if match := re.search(
        r"Callable\[\[[^\]]*\], [\w.]*?(\w+)\] expects.* Got value: \W*(?:\w+\(class_path=')?([\w.]+)", message
    ):
        return f"{flag} must be the class path of a subclass of {match[1]}, got {match[2]}."
    if nested := re.search(r"NestedArg\(key='([\w.]*\bhelp)'", message):
        return f"{flag}.{nested[1]} is a setting of a part that is not chosen; name it before, as {flag} NAME."
    base = PARTS.get(flag.removeprefix("--"))
    if match := re.search(r"Expected a dot import path string: (.*)", message):
        if base is None:
            return f"{flag} must be a class path, got {match[1]}."
        names = names_of(base)
        close = get_close_matches(match[1], names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? It" if close else "it"
        return f"{flag} does not know {match[1]}; {hint} can be {', '.join(names)}, or the class path of your own."
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if value and value[1] == "None":
        return f"{flag} must not be null; leave it out for its default."
    if "Unable to load config" in message:
        part = re.sub(r"\.(\w+)$", lambda last: "" if flag.endswith(f"-{last[1]}.{last[1]}") else last[0], flag)
        return f"{part} must be settings by their names, or the name of a YAML file with such."
    if match := re.search(r"ubclass of (\w+)|class, but [\w.]*?(\w+) is abstract", message):
        given = value or re.search(r"Import path ([\w.]+)", message)
        kind, got = match[1] or match[2], f", got {given[1]}" if given else ""
        known = f", such as {', '.join(names_of(base))}" if base else ""
        return f"{flag} must be the name of a {kind}{known}{got}."
    if value and (match := re.search(r"Expected a typing.Literal\[([^\]]*)\]", message)):
        return f"{flag} must be one of {match[1]}, got {value[1]}."
    kinds = re.findall(r"Expected a (?!<class 'NoneType'>|path)(.*?)(?:\. Got value|$)", message, re.MULTILINE)
    if value and len(kinds) == 1 and (kind := re.fullmatch(r"<class '(\w+)'>", kinds[0])):
        return f"{flag} must be {_KINDS.get(kind[1], kind[1])}, got {value[1]}."
    if value and kinds:
        return f"{flag} does not take {value[1]}; bnn {verb} --help says what it is."
    lines = [line.strip() for line in re.sub(r'Parser key "[\w.]+":', "", message).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(_BOILERPLATE)).rstrip(".")
    return f"{flag}: {text}." if len(flag) > 2 else f"{text}."
