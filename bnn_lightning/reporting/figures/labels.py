"""Texts of users, such as the names of their classes, as matplotlib draws them: literally, in fonts that have them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from matplotlib import rc_context, rcParams
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font


def as_drawn(text: str) -> str:
    """``text`` for a figure, where it encloses no formula, is left out of no legend, and needs no missing letter.

    A letter that no font of ``rcParams["font.family"]`` has becomes a question mark.
    """
    fonts = tuple(findfont(FontProperties(family=[family])) for family in rcParams["font.family"])
    letters = (letter if letter == "\n" or _is_in_one_of(fonts, letter) else "?" for letter in text)
    # An even number of dollars would enclose a formula, and legends leave out what begins with an underscore.
    return (" " if text.startswith("_") else "") + "".join(letters).replace("$", r"\$")


def short(name: str, length: int = 12) -> str:
    """At most ``length`` characters of a name, as they are drawn."""
    return as_drawn(name if len(name) <= length else f"{name[: length - 1]}…")


@contextmanager
def names_in_fonts(names: Sequence[str]) -> Iterator[list[str]]:
    """The names, while figures are drawn in fonts that have their letters.

    A name with a letter that no installed font has is replaced by the number of its class, such as "class 3".
    """
    default = findfont(FontProperties())
    families = list(rcParams["font.family"])
    shown = []
    for label, name in enumerate(map(str, names)):
        missing = {letter for letter in name if ord(letter) not in _letters(default)}
        others = {letter: _family_with(ord(letter)) for letter in sorted(missing)}
        if None in others.values():
            shown.append(f"class {label}")
        else:
            families += [family for family in others.values() if family and family not in families]
            shown.append(name)
    with rc_context({"font.family": families}):
        yield shown


@cache
def _is_in_one_of(fonts: tuple[str, ...], letter: str) -> bool:
    return any(ord(letter) in _letters(font) for font in fonts)


@cache
def _letters(font: str) -> frozenset[int]:
    return frozenset(get_font(font).get_charmap())


@cache
def _family_with(letter: int) -> str | None:
    """The first installed family that has a letter; matplotlib's Last Resort has a box for each, and does not count."""
    for entry in fontManager.ttflist:
        if not entry.name.startswith("Last Resort") and letter in _letters(entry.fname):
            return entry.name
    return None
