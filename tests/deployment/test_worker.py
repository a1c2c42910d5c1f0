"""What a process of bnn serve makes of the requests that wait: batches, answers, and those that nobody waits for."""

import io
import json
import queue
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bnn_lightning import Predictor, Sampler
from bnn_lightning.data import MNIST5k
from bnn_lightning.likelihoods import GaussianLikelihood
from bnn_lightning.preprocessing.columns import Columns
from bnn_lightning.preprocessing.tables import RowPreparation
from tests.deployment.conftest import LENET_CKPT

worker = pytest.importorskip("bnn_lightning.serving.worker", reason="bnn serve needs litserve", exc_type=ImportError)


def answers(predictor, requests, max_pixels=25_000_000):
    return worker.answers(predictor, requests, max_pixels)


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
    assert answers(predictor, requests) == [answers(predictor, [request])[0] for request in requests]


def test_what_one_request_breaks_is_no_fault_of_the_others(requests, capfd):
    predictor = Predictor.load(LENET_CKPT, samples=3)
    requests = requests[:3]
    (second,) = predictor.preparation.batches(requests[1], 1)

    class Breaks:
        def __init__(self, error):
            self.error = error

        draws, batch_size, preparation = predictor.draws, predictor.batch_size, predictor.preparation

        def of_prepared(self, batches):
            batches = list(batches)
            if any((batch.x == second.x).flatten(1).all(1).any() for batch in batches):
                raise self.error
            return predictor.of_prepared(batches)

    refused = answers(Breaks(ValueError("an output is not finite")), requests)
    assert [answer.status for answer in refused] == [200, 422, 200]
    failed = answers(Breaks(OverflowError("a fault of ours")), requests)
    assert [answer.status for answer in failed] == [200, 500, 200]
    assert "a fault of ours" in capfd.readouterr().err
    unreadable = answers(predictor, [requests[0], [b"no picture"], [None], requests[2]])
    assert [answer.status for answer in unreadable] == [200, 422, 422, 200]


def test_rows_do_not_depend_on_what_else_waits():
    columns = Columns({"a": None, "b": None, "c": ["maybe", "true"]})
    preparation = RowPreparation(columns, "mean", (0.0,) * 4, (1.0,) * 4)
    predictor = Predictor(Sampler(nn.Linear(4, 2), 1, "mean"), GaussianLikelihood(), preparation)
    whole = {"a": 1, "b": 2, "c": "maybe"}
    requests = [
        [{"a": 1, "c": "maybe"}],
        [whole],
        [{"a": 1, "b": 2, "c": True}],
        [whole | {"b": "a text"}],
        [whole] * 2,
    ]
    alone = [answers(predictor, [request])[0] for request in requests]
    assert [answer.status for answer in alone] == [422, 200, 200, 422, 200]
    for together in (requests, requests[::-1]):
        found = answers(predictor, together)
        assert found == (alone if together is requests else alone[::-1])


def test_more_examples_than_go_through_the_network_at_once(requests):
    predictor = Predictor.load(LENET_CKPT, draws="mean", batch_size=2)
    found = answers(predictor, [requests[0], requests[1] * 3, requests[2]])
    assert [answer.status for answer in found] == [200] * 3
    assert [len(json.loads(answer.body)["predictions"]) for answer in found] == [1, 3, 1]


def test_small_files_of_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    def picture(side):
        file = io.BytesIO()
        Image.new("1", (side, side)).save(file, "TIFF", compression="group4")
        return file.getvalue()

    one, many, bomb = picture(200), picture(300), picture(9500)
    predictor, decoded = Predictor.load(LENET_CKPT, draws="mean"), []
    monkeypatch.setattr(
        Image.Image, "load", lambda self, load=Image.Image.load: decoded.append(self.size) or load(self)
    )
    allowed, refused, together, most = answers(predictor, [[one], [many], [one, one], [bomb]], 60_000)
    assert [allowed.status, refused.status, together.status, most.status] == [200, 413, 413, 413]
    assert max(decoded) == (200, 200)
    sentence = (
        "The images of a request may have 60,000 pixels, and those of this one have more; send smaller ones, or fewer."
    )
    assert json.loads(together.body) == {"error": sentence}
    (answer,) = answers(predictor, [[bomb]], 100_000_000)  # Pillow's own limit
    assert answer.status == 422


def test_what_nobody_waits_for_any_more_is_not_predicted():
    sent, waiting = [], queue.Queue()
    for uid, age in (("old", 31), ("new", 1), ("older", 300)):
        waiting.put((0, uid, time.monotonic() - age, [uid]))
    api = worker.PredictorAPI(worker.Model(("no.ckpt",)), max_batch=8, max_pixels=1000, seconds=30)
    transport = SimpleNamespace(send=lambda messages, consumer_id: sent.extend(messages))
    taken, _ = api.loop.get_batch_requests(api, waiting, transport)
    assert [uid for _, uid, _ in taken] == ["new"]
    assert [message.uid for message in sent] == ["new"]


def test_json_has_no_infinite_numbers():
    assert worker.as_json({"a": np.array([1.5, np.inf]), "b": (float("nan"), torch.tensor(2).numpy())}) == (
        b'{"a":[1.5,null],"b":[null,2]}'
    )
