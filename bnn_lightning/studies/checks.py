"""Checks the types and values of a study file's entries."""

import math
from collections.abc import Collection
from typing import Any

from bnn_lightning.studies.columns import COLUMNS, check_column, heading

_TEXT, _NAMED, _LIST, _NUMBER = (str, "text"), (dict, "settings by name"), (list, "a list"), (int, "a whole number")
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("title", "base", "about", "kind", "checkpoint", "score", "against", "source"), _TEXT),
    **dict.fromkeys(("set", "test", "grid", "cells", "search", "not_run", "published", "chosen"), _NAMED),
    **dict.fromkeys(("seeds", "columns", "at", "claims", "rankings"), _LIST),
    "trials": _NUMBER,
}

RESERVED = ("seed", "settings", "failed", "command", *COLUMNS)  # columns of rows that are not axes


def check_file(content: Any, known: Collection[str]) -> None:
    """Raises ValueError where the content of a file is no valid study; the message says what is wrong.

    Args:
        content: of the file, as YAML gives it.
        known: the keys that a study file may have.
    """
    _must_be(content, _NAMED, "it")
    if unknown := set(content) - set(known):
        raise ValueError(f"it knows no {', '.join(sorted(map(str, unknown)))}; it can have {', '.join(sorted(known))}.")
    for name in ("title", "base"):
        if name not in content:
            raise ValueError(f"it must have a {name}.")
    for name, value in content.items():
        _must_be(value, _KINDS[name], name)
    _check_seeds(content.get("seeds", [0]), "seeds")
    if content.get("at"):
        _check_seeds(content["at"], "at")
    _check_flags(content.get("set", {}), "set")
    _check_flags(content.get("test", {}), "test")
    for name in content.get("not_run", {}):
        _must_be(name, _TEXT, "not_run: a cell")
    for axis, values in content.get("grid", {}).items():
        _must_be(axis, _TEXT, "an axis of the grid")
        if not values:
            raise ValueError(f"grid: {axis} must have at least one value, got {values!r}.")
        if isinstance(values, list):
            for value in values:
                _check_flags({axis: value}, "grid")
            continue
        _must_be(values, (dict, "a list of values, or names with flags"), f"grid: {axis}")
        _check_named_flags(values, axis)
        if axis in RESERVED:
            raise ValueError(f"an axis must not be called {axis}, which is another column of the rows.")
    _check_named_flags(content.get("cells", {}), "cells")
    for name, space in content.get("search", {}).items():
        _must_be(name, _TEXT, "search: a flag")
        _check_space(name, space)
    check_column(content.get("score", "accuracy"), "score")
    if content.get("against"):
        check_column(content["against"], "against")
    for column in content.get("columns", []):
        _must_be(column, _TEXT, "a column")
        heading(column)
    for column in content.get("rankings", []):
        check_column(column, "rankings")
    for column, figures in content.get("published", {}).items():
        check_column(column, "published")
        _must_be(figures, _NAMED, f"published: {column}")
        for cell, figure in figures.items():
            _must_be(cell, _TEXT, f"published: {column}: a cell")
            _must_be(figure, ((int, float), "a number"), f"published: {column}: {cell}")
    for claim in content.get("claims", []):
        _check_claim(claim)
    if content.get("chosen"):
        _check_chosen(content["chosen"])


def _must_be(value: Any, kind: tuple[Any, str], name: str) -> None:
    if not isinstance(value, kind[0]) or isinstance(value, bool):
        raise ValueError(f"{name} must be {kind[1]}, got {value!r}.")


def _check_named_flags(named: dict[Any, Any], where: str) -> None:
    for name, flags in named.items():
        if flags is not None:
            _must_be(flags, (dict, "flags with their values"), f"{where}: {name}")
            _check_flags(flags, f"{where}: {name}")


def _check_flags(flags: dict[Any, Any], where: str) -> None:
    for flag in flags:
        _must_be(flag, _TEXT, f"{where}: a flag")
    _check_seeds(flags.get("seeds", [0]), f"{where}: seeds")
    members = flags.get("members", 1)
    _must_be(members, _NUMBER, f"{where}: members")
    if members < 1:
        raise ValueError(f"{where}: members must be 1 or more, got {members}.")


def _check_seeds(seeds: Any, name: str) -> None:
    integers = isinstance(seeds, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not (integers and seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"{name} must be a list of different whole numbers such as [0, 1, 2], got {seeds!r}.")


def _check_space(name: str, space: Any) -> None:
    if isinstance(space, list) and space:
        return
    numbers = isinstance(space, dict) and all(_is_finite(space.get(end)) for end in ("low", "high"))
    if not numbers or set(space) - {"low", "high", "log"} or not space["low"] < space["high"]:
        raise ValueError(
            f"search: {name} must be a list of choices or numbers low and high, perhaps with log: true, got {space!r}; "
            "YAML reads 1e-4 as text, write 0.0001."
        )
    if space.get("log") and space["low"] <= 0:
        raise ValueError(f"search: {name} must have a low above 0 for log, got {space['low']}.")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_claim(claim: Any) -> None:
    needed, known = {"says", "higher", "than"}, {"says", "higher", "than", "column", "within"}
    if not isinstance(claim, dict) or not needed <= set(claim) <= known:
        raise ValueError(f"a claim must have {', '.join(sorted(needed))}, perhaps column and within, got {claim!r}.")
    for side in ("higher", "than"):
        _must_be(claim[side], ((str, dict), "a cell's name, or values of axes"), f"claim: {side}")
    if isinstance(claim["higher"], str) != isinstance(claim["than"], str) or (
        isinstance(claim["higher"], dict) and set(claim["higher"]) != set(claim["than"])
    ):
        raise ValueError(f"a claim must compare two cells, or values of the same axes, got {claim!r}.")
    check_column(claim.get("column", "accuracy"), "claim: column")
    _must_be(claim.get("within", 0), ((int, float), "a number"), "claim: within")


def _check_chosen(chosen: dict[Any, Any]) -> None:
    if not {"axis", "by"} <= set(chosen) <= {"axis", "by", "among", "published"}:
        raise ValueError(f"chosen must have axis and by, perhaps among and published, got {chosen!r}.")
    _must_be(chosen["axis"], _TEXT, "chosen: axis")
    check_column(chosen["by"], "chosen: by")
    _must_be(chosen.get("among", []), _LIST, "chosen: among")
    _must_be(chosen.get("published", {}), _NAMED, "chosen: published")
    for source, figures in chosen.get("published", {}).items():
        _must_be(figures, _NAMED, f"chosen: published: {source}")
        for cell, figure in figures.items():
            _must_be(figure, ((int, float), "a number"), f"chosen: published: {source}: {cell}")
