"""What verbs say about predictions: how they were made, and what was measured of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bnn_lightning.cli.checkpoint import config_of
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import class_name, method_name
from bnn_lightning.data import DataSource
from bnn_lightning.evaluation.draws import Draws, pooled_samples, samples_of
from bnn_lightning.evaluation.metrics import Estimate
from bnn_lightning.files import relative_to_cwd
from bnn_lightning.reporting.results import Source, evaluation


def evaluation_results(
    session: Session, predictions: Mapping[str, Mapping[str, Estimate]], images: int, draws: Draws, samples: int
) -> dict[str, Any]:
    """What was measured in each way of predicting, in plain values.

    Args:
        session: after the Trainer has measured.
        predictions: by way of predicting and metric.
        images: how many there were.
        draws: how samples were drawn.
        samples: how many were asked for.
    """
    config, data = session.config.model, session.data_description
    source = Source(
        checkpoint=relative_to_cwd(session.checkpoint.path),
        **{name: class_name(config[name]) for name in ("network", "inference", "likelihood")},
        method=method_name(config),
        data=data["name"],
        images=images,
        draws=draws,
        samples=samples_of(draws, samples, session.model.members) if draws == "moments" else samples,
        members=session.model.members,
        notes=[*data["notes"], *_seen_before(session)],
    )
    return evaluation(source, predictions, session.model.summary)


def _seen_before(session: Session) -> list[str]:
    """A caveat where measured examples are training examples: copies in a folder, or a folder that was divided anew."""
    data, known = session.datamodule, (session.checkpoint.data or {}).get("trained_on")
    if known is None or not isinstance(data, DataSource):
        return []
    measured = data.test if data.test is not None else data.selection
    count = data.count_trained_on(measured, known)
    return [f"{count:,} of these {len(measured):,} are training examples"] if count else []


def findings_text(findings: Mapping[str, float]) -> str:
    """What an inference has found out, see :meth:`bnn_lightning.Inference.findings`, in a line."""
    line = "; ".join(f"{name} {value:,.6g}" for name, value in findings.items())
    return line[:1].upper() + line[1:]


@contextmanager
def shown_once_written(show: Callable[[], None]) -> Iterator[None]:
    """Calls ``show`` when the block has written what was computed, and also when it could not."""
    try:
        yield
    finally:
        show()


def samples_of_calibration(session: Session) -> int | None:
    """How many samples the calibration was fitted with; None where it is that of now, or fixed."""
    model = session.model
    then = pooled_samples(config_of(session.checkpoint)["model"]["sampling"]["test_samples"], model.members)
    return None if model.draws in ("mean", "moments") or then == model.test_samples else then
