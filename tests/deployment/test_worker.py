"""What a process of bnn serve makes of the requests that wait: batches, answers, and those that nobody waits for."""

import io
import queue
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning import Predictor
from bnn_lightning.data import MNIST5k
from tests.deployment.conftest import LENET_CKPT

worker = pytest.importorskip("bnn_lightning.serving.worker", reason="bnn serve needs litserve", exc_type=ImportError)


@pytest.fixture(scope="module")
def requests():
    """Four requests with a digit each, as PNG."""
    pixels = MNIST5k().load_test().pixels[::77, 0][:4].numpy()
    files = [io.BytesIO() for _ in pixels]
    for file, digit in zip(files, pixels, strict=True):
        Image.fromarray(digit).save(file, "PNG")
    return [[file.getvalue()] for file in files]


def test_local_draws_do_not_depend_on_what_else_waits(requests):
    predictor = Predictor.load(LENET_CKPT, draws="local", samples=3)
    assert worker.answers(predictor, requests) == [worker.answers(predictor, [request])[0] for request in requests]


def test_what_one_request_breaks_is_no_fault_of_the_others(requests, capfd):
    predictor = Predictor.load(LENET_CKPT, samples=3)
    requests = requests[:3]

    class Breaks(Predictor):
        def __init__(self, error):
            self.error = error

        draws = predictor.draws

        def __call__(self, examples):
            if requests[1][0] in examples:
                raise self.error
            return predictor(examples)

    refused = worker.answers(Breaks(ValueError("no picture")), requests)
    assert [answer.status for answer in refused] == [200, 422, 200]
    failed = worker.answers(Breaks(OverflowError("a fault of ours")), requests)
    assert [answer.status for answer in failed] == [200, 500, 200]
    assert "a fault of ours" in capfd.readouterr().err


def test_what_nobody_waits_for_any_more_is_not_predicted():
    sent, waiting = [], queue.Queue()
    for uid, age in (("old", 31), ("new", 1), ("older", 300)):
        waiting.put((0, uid, time.monotonic() - age, [uid]))
    api = worker.PredictorAPI(worker.Model(("no.ckpt",)), max_batch=8, seconds=30)
    transport = SimpleNamespace(send=lambda messages, consumer_id: sent.extend(messages))
    taken, _ = api.loop.get_batch_requests(api, waiting, transport)
    assert [uid for _, uid, _ in taken] == ["new"]
    assert [message.uid for message in sent] == ["new"]


def test_json_has_no_infinite_numbers():
    assert worker.as_json({"a": np.array([1.5, np.inf]), "b": (float("nan"), torch.tensor(2).numpy())}) == (
        b'{"a":[1.5,null],"b":[null,2]}'
    )
