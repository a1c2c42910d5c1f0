"""Sentences about what is odd in a picture folder, and may not be meant."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bnn_lightning.preprocessing.decoding import Reading
from bnn_lightning.preprocessing.pictures import SPLIT_OF, UNREAD_ENDINGS, Picture, Walk, by_folder, folder_above
from bnn_lightning.wording import listed, printable, with_counts

_SplitsOfClasses = Mapping[str, Mapping[str, Sequence[Picture]]]


def on_walk(walk: Walk) -> list[str]:
    """On pictures that no split and no prediction can have: in other formats, and in folders that are closed."""
    unread = Counter[str]()
    for (_, ending), count in walk.passed_over.items():
        if ending in UNREAD_ENDINGS:
            unread[ending] += count
    remarks = []
    if unread:
        remarks.append(
            f"pictures in {printable(walk.root)} have formats that are not read ({with_counts(unread)}) and are left "
            "out; convert them to PNG or JPEG."
        )
    if walk.closed:
        folder, reason = next(iter(walk.closed.items()))
        remarks.append(f"folders that cannot be opened: {len(walk.closed):,}, such as {printable(folder)}: {reason}.")
    return remarks


def on_empty_folders(walk: Walk, empty: Iterable[Path]) -> list[str]:
    """On folders that would be classes if their pictures had other formats."""
    unread = {below for below, ending in walk.passed_over if ending in UNREAD_ENDINGS}
    starts = {below[:depth] for below in unread for depth in (1, 2)}
    named = [printable(folder) for folder in empty if folder.relative_to(walk.root).parts in starts]
    return [f"no picture can be read in {listed(named)}, which is therefore no class."] if named else []


def on_readings(pictures: Sequence[Picture], reading: Reading, unreadable: Mapping[Path, str]) -> list[str]:
    """On files that could not be read, and on pictures of more than 8 bits that were not scaled alike."""
    remarks = []
    if unreadable:
        file, reason = next(iter(unreadable.items()))
        remarks.append(
            f"pictures that cannot be read and are left out: {len(unreadable):,}, such as {printable(file)}: {reason}"
        )
    ranges = {(low, high): index for index, low, high in reading.ranges}
    if len(ranges) > 1:
        examples = [
            f"{low:g} to {high:g} in {printable(pictures[ranges[low, high]].path)}" for low, high in sorted(ranges)
        ]
        remarks.append(
            "pictures of more than 8 bits are scaled by the range that each uses, and these differ: "
            f"{listed(examples)}; save them with 8 bits where their brightness is to be compared."
        )
    return remarks


def on_other_folders(root: Path, classes: Iterable[str], splits: Mapping[str, Path]) -> list[str]:
    """On class folders that lie beside folders of splits."""
    if not splits:
        return []
    beside = f"{listed(classes)} beside {listed(folder.name for folder in splits.values())} in {printable(root)}"
    if "train" in splits:
        return [f"{beside} are in no split and are passed over; move them into {printable(splits['train'])}."]
    return [f"{beside} are taken for the training classes; a folder train around them would say so."]


def on_pictures_without_class(folders: Mapping[Path, Sequence[Picture]]) -> list[str]:
    """On pictures that lie directly in the root or in a split."""
    return [
        f"pictures directly in {printable(folder)}, in no class folder, are passed over: {len(pictures):,}, such as "
        f"{printable(pictures[0].path.name)}; bnn predict takes them."
        for folder, pictures in folders.items()
        if pictures
    ]


def on_classes(splits: _SplitsOfClasses, folders: Mapping[str, Path]) -> list[str]:
    """On classes that validation or test lacks, or has alone."""
    remarks = []
    train = splits.get("train", {})
    for split in [split for split in splits if split != "train" and train]:
        lacks = [name for name in train if name not in splits[split]]
        alone = {name: len(pictures) for name, pictures in splits[split].items() if name not in train}
        if lacks:
            remarks.append(f"{printable(folders[split])} has no pictures of {listed(lacks)}.")
        if alone:
            remarks.append(
                f"{printable(folders[split])} has classes that training has not, and they are passed over: "
                f"{with_counts(alone)}."
            )
    return remarks


def on_depth(splits: _SplitsOfClasses, folders: Mapping[str, Path], root: Path) -> list[str]:
    """On folders of splits that lie beside the root, or within the classes."""
    if folders.get("train") != root:
        return []
    remarks = []
    beside = _splits_beside(root)
    if beside:
        above = printable(folder_above(root))
        remarks.append(
            f"{printable(root)} lies beside {listed(beside)}; --data.root {above} would use each for its split."
        )
    within = [{*by_folder(pictures, 1)[0]} for pictures in splits["train"].values()]
    if len(within) > 1 and all(any(name.lower() in SPLIT_OF for name in names) for names in within):
        remarks.append(
            f"the classes in {printable(root)} hold folders called like splits, whose pictures are mixed; folders "
            "SPLIT/CLASS, not CLASS/SPLIT, would keep them apart."
        )
    return remarks


def on_shared_files(splits: _SplitsOfClasses) -> tuple[list[str], frozenset[str]]:
    """On files that links put into several classes or splits; and the splits that have training pictures alone."""
    files = {
        split: [picture.real for name in classes for picture in classes[name]] for split, classes in splits.items()
    }
    counts = Counter(file for of_split in files.values() for file in of_split)
    shared = [file for file, count in counts.items() if count > 1]
    train = set(files.get("train", ()))
    repeated = frozenset(split for split in files if split != "train" and train.issuperset(files[split]))
    if not shared:
        return [], repeated
    return [
        f"files that links put into two classes or splits: {len(shared):,}, such as {printable(shared[0])}."
    ], repeated


def on_links(named: Sequence[Picture]) -> list[str]:
    """On files that a table of labels names in several places."""
    first: dict[str, Picture] = {}
    repeated = [picture for picture in named if first.setdefault(picture.real, picture) != picture]
    if not repeated:
        return []
    such_as = f"{printable(repeated[0].path)}, which is {printable(first[repeated[0].real].path)}"
    return [
        f"labelled pictures that are links to another one, and are taken once: {len(repeated):,}, such as {such_as}."
    ]


def _splits_beside(root: Path) -> list[str]:
    """Folders beside ``root`` that are called like other splits, if it is called like one."""
    place = root.resolve()
    own = SPLIT_OF.get(place.name.lower())
    if own is None:
        return []
    try:
        names = sorted(entry.name for entry in os.scandir(place.parent) if entry.is_dir())
    except OSError:
        return []
    return [printable(name) for name in names if SPLIT_OF.get(name.lower(), own) != own]
