"""The command line's parser: help that fits on a screen or two, and errors raised instead of printed."""

import argparse
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from inspect import getdoc, signature
from numbers import Number
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter, Namespace
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from bnn_lightning.checkpoints.parts import default_class_without_arguments
from bnn_lightning.cli.names import PARTS, base_of, classes_of, names_of, whole_key
from bnn_lightning.cli.settings import class_name, class_of
from bnn_lightning.cli.verbs.base import Verb

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


_WIDTH = 110
_OF_ONE_CLASS = "Help for --"  # so jsonargparse describes the parser that shows the settings of one class


class ParseError(ValueError):
    """What jsonargparse found wrong with the command line, in its own words; ``sentences.py`` has ours."""


class ShortHelp(DefaultHelpFormatter):
    """Says what an argument is for and its default; not its type, which the words and the default tell.

    An action marked ``hidden`` is left out of the page only: one whose help is argparse's SUPPRESS would be left out of
    dumped configs too.
    """

    def add_argument(self, action: argparse.Action) -> None:
        if not getattr(action, "hidden", False):
            super().add_argument(action)

    def __init__(self, prog: str, **kwargs: Any):
        super().__init__(prog, max_help_position=32, width=_WIDTH, **kwargs)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = (action.help or "").strip()
        if text and not text.endswith((".", ")")):
            text += "."
        text = text[:1].upper() + text[1:]
        if action.required and action.option_strings:
            return f"{text} (required)"
        shown = action.option_strings and action.nargs != 0 and action.default is not argparse.SUPPRESS
        if not shown or action.dest in ("config", "help"):
            return text
        return f"{text} (default: {_name_in(action.default) if _is_class(action.default) else '%(default)s'})"


class Parser(LightningArgumentParser):
    """Raises its errors instead of printing a usage and leaving."""

    run_name: Callable[[Namespace], str | None] | None = None
    """Gives the name that a run of a config would have, which ``--print_config`` shows."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, formatter_class=ShortHelp, allow_abbrev=False, **kwargs)

    def dump(self, cfg: Namespace, *args: Any, **kwargs: Any) -> str:
        if self.run_name is not None:
            cfg = cfg.clone()
            cfg.name = self.run_name(cfg)
        return super().dump(cfg, *args, **kwargs)

    def parse_args(self, args: Any = None, *rest: Any, **settings: Any) -> Any:
        try:
            return super().parse_args(args, *rest, **settings)
        except ParseError as error:
            name = default_class_without_arguments(str(error))
            flag = f"--model.network.{name}"
            if name is None or any(str(word).startswith(flag) for word in args):
                raise
            config = self.parse_args([*args, f"{flag}=null"], *rest, **settings)
            del config.model.network.init_args[name]
            return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ParseError(message) from ex

    def format_help(self, *args: Any) -> str:
        of_one_class = (self.description or "").startswith(_OF_ONE_CLASS)
        names = _class_help(self) if of_one_class else None
        return names or super().format_help(*args)

    def print_usage(self, file: Any = None) -> None:
        """Nothing: an error is one sentence."""


def _is_class(value: Any) -> bool:
    """Whether the value of a setting names a class."""
    return isinstance(value, Namespace | dict) and "class_path" in value


def _name_in(value: Any) -> str:
    return value["class_path"].rpartition(".")[2]


def flags_of(parser: LightningArgumentParser) -> list[str]:
    """The flags of a verb, without those that only show help."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    return ["--debug", *(flag for flag in flags if not flag.endswith((".help", "+")) and flag != "--print_shtab")]


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
        _shorten(action)
        if action.dest in PARTS and _is_class(action.default):
            settings = ", ".join(signature(class_of(action.default)).parameters)
            if settings:
                action.help = f"{action.help} Settings of {class_name(action.default)}: {settings}."
        if part == "trainer" and argument in _TRAINER_ARGUMENTS:
            action.help = _TRAINER_ARGUMENTS[argument]
            action.option_strings = action.option_strings[:1]
        vars(action)["hidden"] = _is_hidden(verb, action.dest)
    for group in parser._action_groups:
        dests = [action.dest for action in group._group_actions]
        titles = (title for start, title in _TITLES.items() if any(dest.startswith(start) for dest in dests))
        group.title = next(titles, "Options")


def _shorten(action: argparse.Action) -> None:
    """Says which names an argument takes, and leaves out what would take a line of its own: its name in capitals."""
    if action.dest in PARTS:
        action.help = f"{(action.help or '').strip().rstrip('.')}. Names: {', '.join(names_of(PARTS[action.dest]))}."
        action.metavar = "NAME"
    elif action.metavar is None and action.choices is None and action.nargs != 0:
        action.metavar = "FILE" if action.dest in ("config", "ckpt_path") else "VALUE"


def _class_help(parser: Parser) -> str | None:
    """Leaves in the help of one class its settings; of a class that others derive from, gives their names instead."""
    said, _, class_path = (parser.description or "").removeprefix(_OF_ONE_CLASS).partition(".help=")
    key = whole_key(said)
    module, _, name = class_path.rpartition(".")
    part, base = getattr(import_module(module), name), base_of(key)
    if base is not None and issubclass(base, part):
        return names_with_first_lines(key, base)
    known = base is not None and name in names_of(base)
    parser.usage = f"bnn VERB --{key} {name if known else class_path} [--{key}.SETTING VALUE] ..."
    parser.description = _first_line(part)
    for action in parser._actions:
        _shorten(action)
        flags = action.option_strings[:1]  # not --data.ood+, which appends
        action.option_strings = [flag.replace(f"--{said}.", f"--{key}.", 1) for flag in flags]
        vars(action)["hidden"] = action.dest.endswith(".help")
    for group in parser._action_groups:
        group.title, group.description = f"Settings of {name}", None
    return None


def names_with_first_lines(key: str, base: type) -> str:
    """The help of the setting ``key``, which takes the names of classes that belong to ``base``: a line for each."""
    classes = sorted(classes_of(base), key=lambda each: each.__name__)
    indent = 4 + max(len(each.__name__) for each in classes)
    lines = [
        textwrap.fill(
            _first_line(each), _WIDTH, initial_indent=f"  {each.__name__:{indent - 2}}", subsequent_indent=" " * indent
        )
        for each in classes
    ]
    end = f"--{key}.help NAME shows the settings of one. A class of your own goes by its class path."
    return "\n".join([f"usage: bnn VERB --{key} NAME [--{key}.SETTING VALUE] ...", "", *lines, "", end, ""])


def _first_line(part: type) -> str:
    return (getdoc(part) or "").partition("\n")[0]


def _is_hidden(verb: Verb, dest: str) -> bool:
    """Whether help leaves an argument out: the user of this verb has no choice there, or hardly ever."""
    part, _, argument = dest.rpartition(".")
    if dest in ("trainer", "model", "model.sampling", "print_config", "print_shtab") or argument == "help":
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
