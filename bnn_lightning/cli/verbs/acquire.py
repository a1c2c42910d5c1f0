"""Choose which images to label next: a ranked table, and a sheet of what was chosen and why."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from rich.progress import track
from torch import Tensor

from bnn_lightning.acquisition import INFORMATION_RULES, JOINT_RULES, Rule
from bnn_lightning.acquisition import acquire as chosen_by
from bnn_lightning.acquisition.reasons import ranked_rows
from bnn_lightning.cli.chosen import check_classes, check_folder, laid_out, thumbnails
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import class_of
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.data import DataSource, ImageData, ImageFolder
from bnn_lightning.evaluation.pool import pool_outputs
from bnn_lightning.evaluation.sampler import Sampler
from bnn_lightning.files import relative_to_cwd, write_rows
from bnn_lightning.reporting.contact_sheet import write_contact_sheet
from bnn_lightning.reporting.figures import contact_sheet
from bnn_lightning.reporting.results import free_name
from bnn_lightning.training.loading import load_record
from bnn_lightning.wording import counted, printable

_TARGETS = 200  # images whose labels epig is about
_SHOWN = 1000  # chosen images of which the page has a picture


class Acquire(Verb):
    """Ranks unlabelled images by what their labels would be worth."""

    stage = "predict"
    labelled = False
    unlabelled = True
    one_device = True

    def check(self, config: Namespace) -> None:
        if config.count < 1:
            raise UsageError(f"--count must be 1 or more, got {config.count}.")
        if getattr(class_of(config.model.likelihood), "label_kind", None) != "classes":
            raise UsageError(
                "--ckpt_path must be of a network of classes; no rule is known for labels that are numbers."
            )
        if config.targets is not None and config.by != "epig":
            raise UsageError(f"--targets is for --by epig, got {config.by}.")
        if config.link and config.to is None:
            raise UsageError("--link needs --to, the folder in which links are made.")
        if not issubclass(class_of(config.data), DataSource):
            raise UsageError("--data must be a source of bnn_lightning, such as ImageFolder, whose images have names.")
        if config.to is not None and not issubclass(class_of(config.data), ImageFolder):
            raise UsageError("--to copies files, which only --data ImageFolder has.")

    def run(
        self,
        session: Session,
        count: int = 50,
        by: Rule = "batchbald",
        to: str | None = None,
        link: bool = False,
        targets: str | None = None,
    ) -> None:
        """Chooses images to label.

        Args:
            count: how many; of a smaller pool all are chosen.
            by: the rule. batchbald: their labels together say most about the network; bald: each by itself. epig: they
                say most about the labels of --targets. entropy, variation_ratio: the prediction is least certain.
                random: what every rule has to beat.
            to: a folder that the chosen pictures are copied into, by predicted class; null copies nothing.
            link: make links there instead of copies.
            targets: of epig: a folder of pictures such as those that will be predicted later, of which 200 are used at
                random; null takes 200 of the pool.
        """
        model: Any = session.model
        data: Any = session.datamodule
        if to is not None:
            check_folder(Path(to), data.root)
            check_classes(session.data_description["class_names"])
        load_record(model, session.checkpoint)
        model.to(session.trainer.strategy.root_device)
        sampler: Sampler = model.sampler(model.test_samples)  # it takes the weights as they are now
        check_samples(session, sampler, by)
        others = None if targets is None else self._outputs(session, sampler, _pictures(session, targets), "--targets")
        outputs = self._outputs(session, sampler, data, "--data")
        of_targets = None
        if by == "epig":
            others = outputs if others is None else others
            some = torch.randperm(others.shape[1], generator=torch.Generator().manual_seed(model.sampling.seed))
            of_targets = others[:, some[:_TARGETS]]
        acquired = chosen_by(outputs, count, by, of_targets, model.sampling.seed)
        classes = session.data_description["class_names"]
        rows = ranked_rows(outputs, acquired, by, data.predict_names(), classes)
        chosen = acquired.images.tolist()
        unread = [{"file": printable(file), "error": reason} for file, reason in data.unreadable.items()]
        columns = [*dict.fromkeys(name for row in rows for name in row)]
        with free_name(session.run.logs, "acquired") as name:
            path = session.run.logs / f"{name}.csv"
            write_rows(path, [*columns, "error"], [*rows, *unread])
        written = [path]
        if isinstance(data, ImageData):
            written += _sheets(data, chosen, rows[: len(chosen)], path, by)
        session.print(
            f"{len(chosen):,} of {outputs.shape[1]:,} chosen by {by}: {', '.join(map(relative_to_cwd, written))}"
        )
        if to is not None:
            pool = data.predict_pictures()
            places = laid_out(
                [pool[image] for image in chosen], [row["predicted"] for row in rows[: len(chosen)]], Path(to), link
            )
            for row, place in zip(rows, places, strict=False):
                row["placed"] = place
            write_rows(path, [*columns, "placed", "error"], [*rows, *unread])
            session.print(
                f"{'Linked' if link else 'Copied'} into {to}, by predicted class; put right what is wrong there, and "
                f"train with {_labels_with(to, data.labels)}."
            )
        for remark in _remarks(count, acquired, outputs, by):
            session.print(remark)
        if unread:
            session.print(f"Could not be read: {len(unread):,}; the last rows say why.")

    def _outputs(self, session: Session, sampler: Sampler, data: Any, flag: str) -> Tensor:
        """``(samples, images, classes)`` of the images that ``flag`` names."""
        loader, trainer = data.predict_dataloader(), session.trainer
        what = "scoring the pool" if flag == "--data" else "targets"

        def batches() -> Iterator[Tensor]:
            shows = session.shows_progress_bar
            for x, _ in track(loader, what, len(loader), console=session.console, disable=not shows, transient=True):
                yield trainer.precision_plugin.convert_input(x.to(trainer.strategy.root_device))

        with trainer.precision_plugin.forward_context():
            outputs = pool_outputs(sampler, batches(), len(data.predict))
        if outputs.shape[1] == 0:
            raise UsageError(
                f"{flag} must have images that can be read, got none among {counted(len(data.unreadable), 'file')}."
            )
        if flag == "--targets" and data.unreadable:
            session.print(f"Targets that cannot be read: {len(data.unreadable):,}.")
        return outputs


def check_samples(session: Session, sampler: Sampler, by: Rule) -> None:
    """Raises a UsageError where a rule cannot go by samples like these."""
    if by in JOINT_RULES and not sampler.is_joint:
        methods = session.config.model.method
        has_shared = methods is not None and "shared" in (methods.get("init_args") or {})
        got, cure = "draws that differ between images", "--by bald looks at each by itself"
        if sampler.draws == "moments":
            got, cure = "moments, which are of each by itself", "--model.sampling.draws null draws"
        elif has_shared:
            cure = "--model.method.shared true draws one mask for all"
        raise UsageError(f"--by {by} needs the same draws for every image, got {got}; {cure}.")
    if by in INFORMATION_RULES and sampler.per_member * len(sampler.nets) < 2:
        raise UsageError(
            f"--by must be entropy, variation_ratio or random for one network that draws nothing, got {by}; "
            "bnn ensemble joins several."
        )


def _labels_with(to: str, labels: list[str] | None) -> str:
    """The flag that adds the folder ``to`` to the labels that there are."""
    if not labels:
        return f"--data.labels {shlex.quote(to)}, or add them to the folders of classes that were trained on"
    return f"--data.labels {shlex.quote(json.dumps([*labels, to], ensure_ascii=False))}"


def _pictures(session: Session, folder: str) -> ImageFolder:
    """The pictures of another folder, prepared as the checkpoint's were."""
    pictures = ImageFolder(root=folder, eval_batch_size=getattr(session.datamodule, "eval_batch_size", 500))
    pictures.prepare_like(session.checkpoint.data or {}, labelled=False)
    pictures.setup("predict")
    return pictures


def _sheets(data: ImageData, chosen: list[int], rows: list[dict[str, Any]], path: Path, by: Rule) -> list[Path]:
    """Writes the sheets of what was chosen, beside the table."""
    title = f"{counted(len(rows), 'image')} to label, by {by}"
    best = "The best first" if len(rows) <= _SHOWN else f"The first {_SHOWN:,}, the best first"
    images, rows = thumbnails(data, chosen[:_SHOWN]), rows[:_SHOWN]
    unit = {"random": "", "variation_ratio": ", {:.2f}"}.get(by, ", {:.3f} nats")
    notes = [f"{row['confidence']:.0%}{unit.format(row['score'])}" for row in rows]
    about = f"{best}. Below each: the predicted class with its probability, and why it was chosen. {path.name}"
    contact_sheet(path.with_suffix(".png"), images, [row["predicted"] for row in rows], notes, title)
    write_contact_sheet(path.with_suffix(".html"), images, rows, title, f"{about} has all numbers.")
    return [path.with_suffix(".png"), path.with_suffix(".html")]


def _remarks(count: int, acquired: Any, outputs: Tensor, by: Rule) -> list[str]:
    remarks, pool = [], outputs.shape[1]
    if count >= pool:
        remarks.append(f"The pool has {counted(pool, 'image')}, so that all were chosen.")
    elif by != "random" and acquired.scores.max() - acquired.scores.min() < 1e-9:
        remarks.append("All images have the same score, so that the choice is a random one.")
    limit = torch.tensor(float(len(outputs))).log().item()
    if acquired.joint is not None and len(acquired.joint) > 1 and acquired.joint[-1] > 0.98 * limit:
        full = int((acquired.joint > 0.98 * limit).int().argmax()) + 1
        remarks.append(
            f"The first {full} labels say all that {len(outputs)} samples can tell apart ({limit:.2f} nats): raise "
            "--model.sampling.test_samples, or take fewer at a time."
        )
    return remarks
