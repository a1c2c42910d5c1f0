"""Which pictures of a folder may be chosen to be labelled."""

from collections.abc import Collection, Sequence

from bnn_lightning.data.source import DataNotFoundError
from bnn_lightning.preprocessing.pictures import SPLIT_OF, Picture, Walk
from bnn_lightning.wording import listed, printable


def pool_of(walk: Walk, labels: Sequence[str], labelled: Collection[str]) -> tuple[list[Picture], list[str]]:
    """The pictures without a label that are in no part to validate or test on, and a remark on those parts.

    Args:
        walk: what lies below the root.
        labels: the tables and folders of labels.
        labelled: the files that have a label there, as ``Picture.real`` has them.

    Raises:
        DataNotFoundError: when there are pictures, and none of them is one.
    """
    unlabelled = [picture for picture in walk.pictures if picture.real not in labelled]
    held_out = _held_out(walk.pictures)
    pool = [picture for picture in unlabelled if picture not in held_out]
    if walk.pictures and not pool:
        or_held_out = ", or is one to validate or test on" if unlabelled else ""
        raise DataNotFoundError(
            f"every picture below {printable(walk.root)} has its label in {listed(labels)}{or_held_out}."
        )
    if len(pool) == len(unlabelled):
        return pool, []
    such_as = next(picture.path for picture in unlabelled if picture in held_out)
    return pool, [
        "unlabelled pictures in folders of validation and test, which are not chosen from: "
        f"{len(unlabelled) - len(pool):,}, such as {printable(such_as)}; a test set is drawn at random."
    ]


def _held_out(pictures: Sequence[Picture]) -> set[Picture]:
    """Those in folders below the root that are called like validation and test, where one is called like training."""
    part_of = {picture: SPLIT_OF.get(picture.below[0].lower()) for picture in pictures if len(picture.below) > 1}
    if "train" not in part_of.values():
        return set()
    return {picture for picture, part in part_of.items() if part in ("val", "test")}
