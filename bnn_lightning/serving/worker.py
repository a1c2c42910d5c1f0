"""A process that predicts: its Predictor, and requests that wait at the same moment as one batch."""

import json
import math
import os
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from io import BytesIO
from queue import Empty, Queue
from typing import Any, NamedTuple

import numpy as np
import torch
from litserve import LitAPI
from litserve.loops.simple_loops import BatchedLoop
from litserve.transport.base import MessageTransport
from litserve.utils import LitAPIStatus, LoopResponseType
from torch import Tensor

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.deployment import Predictor
from bnn_lightning.deployment.predictor import record_of
from bnn_lightning.evaluation.draws import Draws
from bnn_lightning.preprocessing.decoding import pixels_in
from bnn_lightning.preprocessing.images import Batch

_WAIT = 0.1
"""Seconds that a worker waits for a request before it looks whether the server is still there. What is taken from the
queue for a worker that has died within them is lost, and answered by the server's own limit of time."""


@dataclass(frozen=True)
class Model:
    """What every process loads its predictor with: arguments of :meth:`bnn_lightning.Predictor.load`, and threads."""

    paths: tuple[str, ...]
    samples: int | None = None
    draws: Draws | None = None
    device: str = "cpu"
    target_risk: float = 0.01
    alpha: float = 0.05
    target_error: float | None = None
    code: str | None = None
    threads: int = 1

    def record(self) -> Record:
        """That of the checkpoint, or of several joined."""
        return record_of(self.paths[0] if len(self.paths) == 1 else self.paths)

    def load(self, record: Record | None = None) -> Predictor:
        """The predictor, in a process that computes with so many threads; of a record where it was read already."""
        torch.set_num_threads(self.threads)
        return Predictor.load(
            record or self.record(),
            samples=self.samples,
            draws=self.draws,
            device=self.device,
            target_risk=self.target_risk,
            alpha=self.alpha,
            target_error=self.target_error,
            code=self.code,
        )


FAILED = "The prediction has failed; the server's log says why."


class Answer(NamedTuple):
    """What a worker says to a request.

    Args:
        status: of HTTP.
        body: JSON.
    """

    status: int
    body: bytes


class Message(NamedTuple):
    """What the server hears of a request.

    Args:
        uid: of the request.
        worker: the number of the worker that has it.
        answer: an :class:`Answer`; anything else where there is none.
        status: one of LitServe's: it was taken, answered, or has failed.
    """

    uid: str
    worker: int | None
    answer: Any
    status: str


class PredictorAPI(LitAPI):
    """A Predictor for LitServe: lists of examples in, answers out.

    Args:
        model: what is loaded in each process.
        max_batch: requests that are predicted together.
        max_pixels: of all images in a request.
        seconds: for which whoever has asked waits; what is older is not predicted.
    """

    queue_process = 0
    """The number of the process that has the queue, set by the server."""

    def __init__(self, model: Model, max_batch: int, max_pixels: int, seconds: float):
        super().__init__(max_batch_size=max_batch, loop=_TakesWhatWaits(seconds))
        self._model, self._max_pixels = model, max_pixels

    def setup(self, device: str) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its workers
        self._predictor = self._model.load()

    def predict(self, requests: Sequence[list[Any]]) -> list[Answer]:  # type: ignore[override]
        return answers(self._predictor, requests, self._max_pixels)


def answers(predictor: Predictor, requests: Sequence[list[Any]], max_pixels: int) -> list[Answer]:
    """The answer to each request: each is prepared by itself, and all go through the network as one batch.

    So the same request has the same answer, whatever else is waiting. Local draws are those of a batch: there each
    request is one. Those of more examples than the predictor takes at once are halved, which bounds what is in memory.
    """
    half = len(requests) // 2
    if half and (predictor.draws == "local" or sum(map(len, requests)) > predictor.batch_size):
        return answers(predictor, requests[:half], max_pixels) + answers(predictor, requests[half:], max_pixels)
    prepared = [_prepared(predictor, request, max_pixels) for request in requests]
    predicted = iter(_predicted(predictor, [x for x in prepared if isinstance(x, Tensor)]))
    return [next(predicted) if isinstance(x, Tensor) else x for x in prepared]


def _prepared(predictor: Predictor, request: list[Any], max_pixels: int) -> Tensor | Answer:
    """The examples of a request as the network takes them, or why there are none."""
    try:
        if sum(pixels_in(BytesIO(example)) for example in request if isinstance(example, bytes)) > max_pixels:
            said = f"The images of a request may have {max_pixels:,} pixels, and those of this one have more"
            return Answer(413, as_json({"error": f"{said}; send smaller ones, or fewer."}))
        return torch.cat([batch.x for batch in predictor.preparation.batches(request, predictor.batch_size)])
    except Exception as error:  # whatever a stranger sends
        return _failure(error)


def _predicted(predictor: Predictor, prepared: Sequence[Tensor]) -> list[Answer]:
    """The answer to each of some requests; they are halved until one that breaks the network is alone."""
    if not prepared:
        return []
    parts = torch.cat(list(prepared)).split(predictor.batch_size)
    try:
        each = iter(predictor.of_prepared(Batch(part, None) for part in parts))
    except Exception as error:  # whatever one example does to the network
        if len(prepared) == 1:
            return [_failure(error)]
        half = len(prepared) // 2
        return _predicted(predictor, prepared[:half]) + _predicted(predictor, prepared[half:])
    return [Answer(200, as_json({"predictions": [_fields(next(each)) for _ in x]})) for x in prepared]


def _failure(error: Exception) -> Answer:
    if isinstance(error, ValueError):
        return Answer(422, as_json({"error": str(error)}))
    traceback.print_exception(error)  # a fault of this program, which is none of the others that wait
    return Answer(500, as_json({"error": FAILED}))


def as_json(content: Any) -> bytes:
    """Plain values and arrays as JSON, which has no infinite numbers: they are null."""
    return json.dumps(_plain(content), allow_nan=False, separators=(",", ":")).encode()


def _fields(prediction: Any) -> dict[str, Any]:
    """The fields of a single prediction by their names; pictures that come as bytes have no file."""
    fields = asdict(prediction) if is_dataclass(prediction) and not isinstance(prediction, type) else dict(prediction)
    fields.pop("file", None)
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _TakesWhatWaits(BatchedLoop):
    """Takes all requests that wait when the worker is free: batches grow with the load, and nobody waits for one.

    LitServe's own asks its queue again and again, which takes a core while there is nothing to do, and sends two
    messages for each request. Here a batch has two: that it was taken, so that the server can answer for a worker that
    dies; and all its answers.

    Args:
        seconds: for which a request is waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._answers: list[Message] = []

    def get_batch_requests(
        self, lit_api: LitAPI, request_queue: Queue, transport: MessageTransport
    ) -> tuple[list, list]:
        taken: list = []
        try:
            self._send(transport, self._answers)
            self._answers = []
            while len(taken) < lit_api.max_batch_size:
                consumer, uid, since, examples = (
                    request_queue.get_nowait() if taken else request_queue.get(timeout=_WAIT)
                )
                if time.monotonic() - since < self._seconds:  # the clock of the machine, not of a process
                    taken.append((consumer, uid, examples))
        except Empty:
            pass
        except (EOFError, OSError):  # the queue's process has ended
            raise SystemExit(0) from None
        self._send(transport, [Message(uid, self.worker_id, None, LitAPIStatus.START) for _, uid, _ in taken])
        if not taken and os.getppid() != self._server_pid:  # the server was killed
            with suppress(OSError):
                os.kill(lit_api.queue_process, signal.SIGTERM)  # which does not look whether it is there
            raise SystemExit(0)
        return taken, []

    def put_response(
        self,
        transport: MessageTransport,
        response_queue_id: int,
        uid: str,
        response_data: Any,
        status: str,
        response_type: LoopResponseType,
    ) -> None:
        self._answers.append(Message(uid, self.worker_id, response_data, status))

    @staticmethod
    def _send(transport: MessageTransport, messages: list[Message]) -> None:
        if messages:
            transport.send(messages, consumer_id=0)  # there is one server
