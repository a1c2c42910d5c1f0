"""What a walk of a picture folder has found, in numbers and in a few lines of text."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnn_lightning.data.picture_layout import Layout, natural_order
from bnn_lightning.preprocessing.pictures import Walk
from bnn_lightning.wording import counted, listed, printable, with_counts

_FEW = 6  # classes whose numbers are all shown


@dataclass(frozen=True)
class Found:
    """What a picture folder holds; ``str()`` says it in a few lines.

    Args:
        root: the folder, or the file.
        pictures: number of picture files below it, whatever their folders.
        splits: for each of ``train``, ``val`` and ``test`` that there is, the number of files of each class. Empty
            where all pictures are taken whatever their folders.
        class_names: in the order of their indices.
        splits_test_by_seed: whether a fifth of ``train`` is the test set.
        passed_over: number of files of each other ending; "" is no ending.
        without_pictures: folders beside those of the classes, or of the splits, without a picture at any depth.
        hidden_files, hidden_folders: numbers of those that are hidden or that another program has left.
        loops: links that lead back and were not followed.
        closed: folders that could not be opened, with the reason.
        unreadable: the picture files that could not be read, with the reason; before they are loaded, links that lead
            nowhere and the like.
        with_frames: number of files of which the first of several pictures or frames was read.
    """

    root: Path
    pictures: int
    splits: Mapping[str, Mapping[str, int]]
    class_names: tuple[str, ...]
    splits_test_by_seed: bool
    passed_over: Mapping[str, int]
    without_pictures: tuple[Path, ...]
    hidden_files: int
    hidden_folders: int
    loops: tuple[Path, ...]
    closed: Mapping[Path, str]
    unreadable: Mapping[Path, str]
    with_frames: int

    @classmethod
    def of(
        cls,
        walk: Walk,
        layout: Layout | None,
        class_names: Sequence[str],
        unreadable: Mapping[Path, str],
        with_frames: int,
    ) -> "Found":
        """Puts together what the walk and the loading have found; without ``layout`` no classes."""
        passed_over = Counter[str]()
        for (_, ending), count in walk.passed_over.items():
            passed_over[ending] += count
        splits = {} if layout is None else layout.splits
        return cls(
            root=walk.root,
            pictures=len(walk.pictures) + len(walk.not_files),
            splits={
                split: {name: len(classes[name]) for name in sorted(classes, key=natural_order)}
                for split, classes in splits.items()
            },
            class_names=tuple(class_names),
            splits_test_by_seed=layout is not None and layout.splits_test_by_seed,
            passed_over=dict(passed_over),
            without_pictures=() if layout is None else layout.empty,
            hidden_files=walk.hidden["files"],
            hidden_folders=walk.hidden["folders"],
            loops=tuple(walk.loops),
            closed=dict(walk.closed),
            unreadable=walk.not_files | dict(unreadable),
            with_frames=with_frames,
        )

    def __str__(self) -> str:
        return "\n  ".join([self._headline(), *filter(None, [self._numbers(), self._passed_over(), *self._of_files()])])

    def _headline(self) -> str:
        root = printable(self.root)
        if not self.splits:
            return f"{root}: {counted(self.pictures, 'picture')}"
        total = sum(count for classes in self.splits.values() for count in classes.values())
        names = {name for classes in self.splits.values() for name in classes}
        headline = f"{root}: {counted(len(names), 'class', 'classes')}, {counted(total, 'picture')}: "
        headline += ", ".join(f"{split} {_of_classes(classes)}" for split, classes in self.splits.items())
        return headline + (", of which a fifth, by the seed, is the test set" if self.splits_test_by_seed else "")

    def _numbers(self) -> str:
        """Says which index a class has that is called by another number."""
        names = self.class_names
        wrong = [index for index, name in enumerate(names) if name.isdecimal() and int(name) != index]
        if not self.splits or not wrong or not all(name.isdecimal() for name in names):
            return ""
        return "index and name of a class differ: " + listed(
            f'index {index} is class "{names[index]}"' for index in wrong
        )

    def _passed_over(self) -> str:
        count = sum(self.passed_over.values())
        parts = [f"{counted(count, 'file')} ({with_counts(self.passed_over)})"] if count else []
        for number, *nouns in (
            (self.hidden_files, "hidden file"),
            (self.hidden_folders, "hidden folder"),
            (len(self.closed), "closed folder"),
            (len(self.loops), "link that leads back", "links that lead back"),
        ):
            parts += [counted(number, *nouns)] if number else []
        if self.without_pictures:
            names = listed(printable(folder) for folder in self.without_pictures)
            parts.append(f"{counted(len(self.without_pictures), 'folder')} without pictures ({names})")
        return f"passed over: {', '.join(parts)}" if parts else ""

    def _of_files(self) -> Iterator[str]:
        if self.with_frames:
            yield f"read by the first of several pictures or frames: {counted(self.with_frames, 'file')}"
        if self.unreadable:
            file, reason = next(iter(self.unreadable.items()))
            yield f"unreadable: {len(self.unreadable):,}, such as {printable(file)}: {reason}"


def _of_classes(classes: Mapping[str, int]) -> str:
    total = f"{sum(classes.values()):,}"
    if len(classes) <= _FEW:
        return f"{total} ({', '.join(f'{name} {count:,}' for name, count in classes.items())})"
    if len(set(classes.values())) == 1:
        return f"{total} ({next(iter(classes.values())):,} of each class)"
    fewest, most = min(classes, key=lambda name: classes[name]), max(classes, key=lambda name: classes[name])
    return f"{total} (from {classes[fewest]:,} of {fewest} to {classes[most]:,} of {most})"
