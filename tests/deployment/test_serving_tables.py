"""bnn serve for a table: rows are answered, and the form has the table's columns."""

import asyncio
import json

import numpy as np
import pytest

from bnn_lightning import Predictor
from bnn_lightning.checkpoints.record import Record

pytest.importorskip("litserve", reason="bnn serve needs litserve: pip install 'bnn_lightning[serve]'")


def request_of(body):
    from starlette.requests import Request

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)


def rows_of(content):
    from bnn_lightning.serving.inputs import Limits, examples_of

    return asyncio.run(examples_of(request_of(json.dumps(content).encode()), "rows", Limits(10_000, 3, 1000)))


@pytest.mark.slow
def test_rows_of_a_table(networks):
    from bnn_lightning.serving.worker import answers

    rows = [{"colour": "red", "age": 3, "size": 4.5}, {"colour": "blue", "age": 7, "size": 1}]
    predictor = Predictor.load(networks / "table" / "version_0")
    assert rows_of({"rows": rows}) == rows
    wrong = [{"colour": "green", "age": 3, "size": 4.5}]
    first, second, third = answers(predictor, [rows, wrong, rows[:1]], 1000)
    assert [first.status, second.status, third.status] == [200, 422, 200]
    said = predictor(rows)
    for got, one in zip(json.loads(first.body)["predictions"], said, strict=True):
        np.testing.assert_allclose(got["mean"], one.mean, rtol=1e-5)
        np.testing.assert_allclose(got["std"], one.std, rtol=1e-5)
    assert json.loads(second.body)["error"].endswith(".")


@pytest.mark.slow
def test_the_form_of_a_table_has_its_columns_and_the_answer_what_the_page_shows(networks):
    from bnn_lightning.serving.information import information
    from bnn_lightning.serving.inputs import Limits
    from bnn_lightning.serving.worker import Model, answers

    path = networks / "table" / "version_0" / "best.ckpt"
    predictor = Predictor.load(path)
    info = information(predictor, Record.read(path), Model((str(path),)), Limits(10_000, 3, 1000))
    assert (info["labels"], info["classes"], info["input"]["kind"]) == ("numbers", [], "rows")
    assert info["input"]["columns"] == {"colour": ["blue", "red"], "age": None, "size": None}
    assert info["input"]["missing"] in ("refuse", "mean")
    assert info["alpha"] == 0.05
    # As the form makes a row of its fields: a text for each list, a number for each other.
    row = {name: 3 if levels is None else levels[-1] for name, levels in info["input"]["columns"].items()}
    (answer,) = answers(predictor, [[row]], 1000)
    (said,) = json.loads(answer.body)["predictions"]
    assert said["target_names"] == ["price"]
    shown = ("mean", "aleatoric_std", "epistemic_std", "low", "high", "conformal_low", "conformal_high")
    assert all(said[name] is None or len(said[name]) == 1 for name in shown)
    assert said["low"][0] < said["mean"][0] < said["high"][0]
    assert min(said["aleatoric_std"][0], said["epistemic_std"][0]) > 0


@pytest.mark.slow
def test_whole_numbers_of_many_digits_are_too_large_like_any_other(networks):
    from bnn_lightning.serving.inputs import Limits, examples_of
    from bnn_lightning.serving.worker import answers

    predictor = Predictor.load(networks / "table" / "version_0")
    sentences = set()
    for number in ("1e400", "-1e400", "9" * 400, "9" * 5000, "-" + "9" * 5000):
        body = b'{"rows": [{"colour": "red", "age": %b, "size": 1}]}' % number.encode()
        rows = asyncio.run(examples_of(request_of(body), "rows", Limits(10_000, 3, 1000)))
        (answer,) = answers(predictor, [rows], 1000)
        assert answer.status == 422
        sentences.add(json.loads(answer.body)["error"])
    assert sentences == {"features must be finite numbers, got an infinite age in row 0 of the list of rows."}


@pytest.mark.parametrize("number", [2**53 + 1, -(10**300)])
def test_other_whole_numbers_keep_their_digits(number):
    assert rows_of({"rows": [{"place": number}]}) == [{"place": number}]


@pytest.mark.parametrize("rows", [3, [3], [{"a": [1]}], [{"a": 1}] * 4, []])
def test_bad_rows_get_a_sentence(rows):
    from bnn_lightning.serving.inputs import RefusedError

    with pytest.raises(RefusedError, match=r"\.$") as refused:
        rows_of({"rows": rows})
    assert 400 <= refused.value.status < 500
