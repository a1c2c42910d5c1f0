"""An inference that takes another's place begins with its own defaults, not with settings of the other."""

from collections.abc import Sequence

from bnn_lightning.cli.words import chosen_name, value_of
from bnn_lightning.inference import Inference, Variational

_KEY = "model.inference"


class _Nothing(Inference):
    """An inference without settings: the parser, which hands on those of the same name, has nothing to hand on."""

    make_optimizer = loss = None  # type: ignore[assignment]  # nothing is ever trained by it; an abstract class is none


def with_inference_afresh(words: Sequence[str]) -> list[str]:
    """The same words, so that a learning rate that was meant for one inference is not that of another.

    Args:
        words: with the config files in front.
    """
    nothing = f"--{_KEY}={__name__}.{_Nothing.__name__}"
    flagged = value_of(f"--{_KEY}", words) or value_of(f"--{_KEY}.class_path", words)
    count = next((place for place in range(0, len(words), 2) if words[place] not in ("-c", "--config")), len(words))
    configs, flags = words[:count], words[count:]
    before = chosen_name(_KEY, configs) or Variational.__name__
    if flagged is not None and not _same_class(flagged, before):
        return [*configs, nothing, f"--{_KEY}={flagged}", *flags]
    return list(words) if _same_class(before, Variational.__name__) else [nothing, *words]


def _same_class(one: str, other: str) -> bool:
    return one.rpartition(".")[2] == other.rpartition(".")[2]
