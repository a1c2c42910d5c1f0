"""Which settings of a checkpoint's model flags may not change: in a run that goes on, and where its network is used."""

import copy
from argparse import ArgumentError
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from bnn_lightning.checkpoints.parts import Parts, parsed_object
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli.checkpoint import config_of
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.settings import class_of
from bnn_lightning.files import relative_to_cwd

# How samples are drawn, how noise is computed, and a permission: a network is the same under any of them.
_FREE = ("sampling", "compile", "allow_shared_statistics")


def refuse_changes(record: Record, model: Mapping[str, Any], trains: bool) -> None:
    """Refuses a setting that would be recorded or reported, while the checkpoint's own is what counts.

    Args:
        record: of the checkpoint.
        model: the settings of ``model`` under the flags.
        trains: whether its run goes on, whose inference says itself which of its settings are fixed.
    """
    if model == config_of(record)["model"]:
        return
    try:
        then, now = (_resolved(settings) for settings in (config_of(record)["model"], model))
    except ArgumentError:
        return  # it names a class that is no more, which a flag has replaced: whether it fits, its weights will show
    for name in sorted(vars(then).keys() - {*_FREE}):
        for flag, was, got in _changes(f"--model.{name}", then[name], now[name], trains):
            if trains:
                raise UsageError(f"{flag} is {was} to the end of a run that goes on, got {got}.")
            path = relative_to_cwd(record.path)
            raise UsageError(f"{flag} is {was} in the trained network of {path}, got {got}; leave it out.")


def _resolved(model: Mapping[str, Any]) -> Namespace:
    """Settings of ``model`` with all defaults, also those of parts that an earlier release did not have."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Parts, "model")
    given = copy.deepcopy(dict(model))
    for _ in range(2):  # a default that is a class, such as an optimizer, is only named once it was written
        parsed = parsed_object(parser, {"model": given}, "model.network")
        given = yaml.safe_load(parser.dump(parsed, skip_unset=False, skip_validation=True, format="yaml"))["model"]
    return parsed.model


def _changes(flag: str, then: Any, now: Any, trains: bool) -> Iterator[tuple[str, str, str]]:
    """Flag, value then and value now of each setting that is another one."""
    if not (_is_part(then) and _is_part(now)):
        if _listed(then) != _listed(now):
            yield flag, _text(then), _text(now)
        return
    if class_of(then) is not class_of(now):
        are_namesakes = _text(then) == _text(now)
        yield (flag, then.class_path, now.class_path) if are_namesakes else (flag, _text(then), _text(now))
        return
    before, after = _settings_of(then), _settings_of(now)
    for name in sorted(_fixed_of(class_of(then), before.keys() | after.keys(), trains)):
        yield from _changes(f"{flag}.{name}", before.get(name), after.get(name), trains)


def _settings_of(part: Namespace) -> dict[str, Any]:
    return vars(part.get("init_args") or Namespace()) | dict(part.get("dict_kwargs") or {})


def _fixed_of(part: Any, names: Collection[str], trains: bool) -> set[str]:
    """Those of the settings of a part that may not change."""
    if trains:
        return {*names} & {*getattr(part, "fixed_in_a_run", names)}
    return {*names} - {*getattr(part, "free_after_training", ())}


def _listed(value: Any) -> Any:
    """A word like a list of it alone, as layers are named."""
    return [value] if isinstance(value, str) else value


def _is_part(value: Any) -> bool:
    return isinstance(value, Namespace) and "class_path" in value


def _text(value: Any) -> str:
    """A value as it would be typed; a part by its name."""
    if _is_part(value):
        return value.class_path.rpartition(".")[2]
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
