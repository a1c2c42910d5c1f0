"""Texts of users, such as the names of their classes, as matplotlib draws them letter by letter."""

from collections.abc import Sequence
from functools import cache

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, get_font


def class_labels(names: Sequence[str]) -> list[str]:
    """The names of classes for a figure; one with a letter that the font lacks has the number of its class in front."""
    return [
        name if name == _legible(name) else f"{number}: {_legible(name)}" for number, name in enumerate(map(str, names))
    ]


def as_drawn(text: str) -> str:
    """``text`` for a figure, where it encloses no formula, is left out of no legend, and needs no missing letter.

    A letter that no font of ``rcParams["font.family"]`` has becomes a question mark.
    """
    text = _legible(text)
    # An even number of dollars would enclose a formula, and legends leave out what begins with an underscore.
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _legible(text: str) -> str:
    return "".join(letter if letter == "\n" or _has_letter(letter) else "?" for letter in text)


@cache
def _has_letter(letter: str) -> bool:
    fonts = [findfont(FontProperties(family=[family])) for family in rcParams["font.family"]]
    return any(get_font(font).get_char_index(ord(letter)) for font in fonts)
