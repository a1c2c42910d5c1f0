"""Names of classes as figures can show them: cut to a length, taken literally, in fonts that have their letters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from matplotlib import rc_context, rcParams
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font


def short(name: str, length: int = 12) -> str:
    """At most ``length`` characters of a name; matplotlib would take what stands between dollars for a formula."""
    cut = name if len(name) <= length else f"{name[: length - 1]}…"
    return cut.replace("$", r"\$")


@contextmanager
def names_in_fonts(names: Sequence[str]) -> Iterator[list[str]]:
    """The names, while figures are drawn in fonts that have their letters.

    A name with a letter that no installed font has is replaced by the number of its class, such as "class 3".
    """
    default = findfont(FontProperties())
    families = list(rcParams["font.family"])
    shown = []
    for label, name in enumerate(names):
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
def _letters(font: str) -> frozenset[int]:
    return frozenset(get_font(font).get_charmap())


@cache
def _family_with(letter: int) -> str | None:
    """The first installed family that has a letter; matplotlib's Last Resort has a box for each, and does not count."""
    for entry in fontManager.ttflist:
        if not entry.name.startswith("Last Resort") and letter in _letters(entry.fname):
            return entry.name
    return None
