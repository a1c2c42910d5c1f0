"""bnn serve: its answers are the predictor's, bad requests get a sentence, and dead workers are replaced."""

import base64
import gzip
import http.client
import io
import json
import os
import pickle
import signal
import socket
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning import Predictor
from bnn_lightning.cli import main
from bnn_lightning.data import MNIST5k
from tests.deployment.conftest import LENET_CKPT, Served, children, command_of, free_port
from tests.helpers import Bomb, printed

pytest.importorskip("litserve", reason="bnn serve needs litserve: pip install 'bnn_lightning[serve]'")

ROUNDING = {"rtol": 0, "atol": 1e-5}  # the server adds in other batches


def png(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def text(content):
    return base64.b64encode(content).decode()


def form(*parts, boundary=b"xx"):
    """A form's body of parts (name, filename or None, content), and its content type."""
    body = b""
    for name, filename, content in parts:
        file = b"" if filename is None else b'; filename="%b"' % filename.encode()
        body += b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n' % (boundary, name.encode(), file)
        body += content + b"\r\n"
    return body + b"--%b--\r\n" % boundary, f"multipart/form-data; boundary={boundary.decode()}"


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(LENET_CKPT)


@pytest.fixture(scope="module")
def digits():
    return MNIST5k().load_test().pixels[::77, 0][:12].numpy()


def check(answer, predictions):
    assert len(answer["predictions"]) == len(predictions)
    for got, said in zip(answer["predictions"], predictions, strict=True):
        assert set(got) == set(vars(said)) - {"file"}
        assert list(got["probabilities"]) == list(said.probabilities)
        np.testing.assert_allclose(list(got["probabilities"].values()), list(said.probabilities.values()), **ROUNDING)
        for name in ("confidence", "entropy", "mutual_information", "aleatoric", "epistemic", "calibrated_confidence"):
            np.testing.assert_allclose(got[name], getattr(said, name), rtol=0, atol=1e-4)
        assert got["name"] == said.name
        assert (got["predicted"], got["accepted"]) == (said.predicted, said.accepted)
        assert tuple(got["prediction_set"]) == said.prediction_set


def test_it_says_what_the_predictor_says(served, predictor, digits):
    files = [png(digit) for digit in digits]
    said = predictor(files)
    for file, one in zip(files, said, strict=True):
        status, answer = served.ask("/predict", file, "image/png")
        assert status == 200
        check(answer, [one])
    for body, content_type, expected in (
        (json.dumps({"images": [text(file) for file in files]}), "application/json", said),
        (json.dumps({"image": text(files[3])}), "application/json; charset=utf-8", said[3:4]),
        (*form(*(("image", f"{n}.png", file) for n, file in enumerate(files))), said),
        (png(digits[5], "BMP"), "image/anything", said[5:6]),
    ):
        status, answer = served.ask("/predict", body, content_type)
        assert status == 200, answer
        check(answer, expected)


def test_requests_at_the_same_moment_get_their_own_answers(served, predictor, digits):
    said, got = predictor([png(digit) for digit in digits]), {}

    def ask(place):
        content = b"no picture" if place % 5 == 4 else png(digits[place % len(digits)])
        got[place] = served.ask("/predict", content, "image/png")

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, (status, answer) in got.items():
        assert status == (422 if place % 5 == 4 else 200)
        if status == 200:
            check(answer, [said[place % len(digits)]])


def test_health_and_info(served, predictor):
    assert served.ask("/health") == (200, {"status": "ok", "ready": 2, "workers": 2})
    status, info = served.ask("/info")
    assert status == 200
    assert info["classes"] == list("0123456789")
    assert (info["draws"], info["samples"], info["rule"]) == ("weights", 25, predictor.rule)
    assert (info["input"]["kind"], info["input"]["size"], info["input"]["channels"]) == ("images", 32, 1)
    assert info["caveats"] == []
    rules = {rule["target_risk"]: rule for rule in info["calibration"]["accept"]}
    assert rules[0.01]["threshold"] == predictor.calibration.accept_rule(0.01).threshold
    assert rules[0.001]["threshold"] is None
    assert (info["max_bytes"], info["max_pixels"]) == (300_000, 25_000_000)


GOOD = png(np.zeros((28, 28), np.uint8))
JSON, PNG = "application/json", "image/png"
FILE = ("image", "a.png", GOOD)
MALFORMED = {
    "no content type": (GOOD, None, 415),
    "another content type": (GOOD, "application/octet-stream", 415),
    "a pickle by its content type": (pickle.dumps([1]), "application/python-pickle", 415),
    "no body": (b"", PNG, 400),
    "no picture": (b"no picture", PNG, 422),
    "a truncated picture": (png(np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8))[:200], PNG, 422),
    "a header alone": (GOOD[:8], PNG, 422),
    "a pickle": (pickle.dumps(Bomb()), PNG, 422),
    "a program of PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage", "image/eps", 422),
    "drawing by XML": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml", 422),
    "more pixels than Pillow takes": (png(np.zeros((9500, 9500), bool)), PNG, 413),
    "too many pixels": (png(np.zeros((5001, 5000), bool)), PNG, 413),
    "too many pixels together": (json.dumps({"images": [text(png(np.zeros((3000, 3000), bool)))] * 3}), JSON, 413),
    "too many bytes": (bytes(300_001), PNG, 413),
    "compressed": (gzip.compress(GOOD), PNG, 415),
    "no JSON": (b"{", JSON, 400),
    "no UTF-8": (b'{"image": "\xff"}', JSON, 400),
    "not a number": (b'{"image": NaN}', JSON, 400),
    "nested": (b"[" * 100_000, JSON, 400),
    "a number of too many digits": (b'{"image": ' + b"9" * 9000 + b"}", JSON, 400),
    "a list": (b"[]", JSON, 400),
    "null": (b"null", JSON, 400),
    "no field": (b"{}", JSON, 400),
    "an unknown field": (json.dumps({"image": text(GOOD), "samples": 3}), JSON, 400),
    "a field that is a program": (json.dumps({"__class__": "os.system"}), JSON, 400),
    "two fields": (json.dumps({"image": text(GOOD), "images": []}), JSON, 400),
    "rows": (json.dumps({"rows": [{"a": 1}]}), JSON, 400),
    "a number for an image": (b'{"image": 3}', JSON, 400),
    "a path": (b'{"image": "/etc/passwd"}', JSON, 400),
    "a path in base64": (json.dumps({"image": text(b"/etc/passwd")}), JSON, 422),
    "a data: prefix": (json.dumps({"image": f"data:image/png;base64,{text(GOOD)}"}), JSON, 400),
    "an empty text": (b'{"image": ""}', JSON, 400),
    "no image": (b'{"images": []}', JSON, 400),
    "a text for images": (json.dumps({"images": text(GOOD)}), JSON, 400),
    "one that is none among images": (json.dumps({"images": [text(GOOD), text(b"no")]}), JSON, 422),
    "too many images": (json.dumps({"images": [text(GOOD)] * 31}), JSON, 413),
    "a form without boundary": (form(FILE)[0], "multipart/form-data", 400),
    "a form of another boundary": (form(FILE)[0], "multipart/form-data; boundary=yy", 400),
    "no form": (b"no form", "multipart/form-data; boundary=xx", 400),
    "a form with an unknown field": (*form(("picture", "a.png", GOOD)), 400),
    "a form with a text": (*form(("image", None, b"text")), 400),
    "a form with an empty file": (*form(("image", "a.png", b"")), 400),
    "a form with too many files": (*form(*[FILE] * 40), 400),
    "an empty form": (*form(), 400),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_bad_requests_get_a_sentence(served, case):
    body, content_type, expected = MALFORMED[case]
    headers = {"Content-Encoding": "gzip"} if case == "compressed" else {}
    status, answer = served.ask("/predict", body, content_type, "POST", headers)
    assert status == expected, answer
    assert list(answer) == ["error"]
    sentence = answer["error"]
    assert sentence.endswith(".")
    assert len(sentence) < 300
    assert not any(word in sentence for word in ("\n", "Traceback", "object at 0x", "bnn_lightning/"))
    assert served.ask("/predict", GOOD, PNG)[0] == 200


def test_bodies_of_no_stated_length_have_a_limit(served):
    parts = (bytes(100_000) for _ in range(4))
    assert served.ask("/predict", parts, PNG, "POST", {"Transfer-Encoding": "chunked"})[0] == 413


OTHERS = {"/predictions": 404, "/docs": 404, "/openapi.json": 404, "/shutdown": 404, "/predict": 405}


@pytest.mark.parametrize("path", OTHERS)
def test_other_addresses_get_a_sentence(served, path):
    status, answer = served.ask(path)
    assert status == OTHERS[path]
    assert answer["error"].endswith(".")


def test_another_method_is_told_which_one_there_is(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", "/predict")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")  # RFC 9110, 15.5.6
    assert json.loads(answer.read()) == {"error": "/predict takes POST, got GET."}
    connection.close()


@pytest.mark.slow
def test_a_killed_worker_is_replaced(served, predictor, digits):
    before, statuses, ends = served.workers(), [], threading.Event()
    assert len(before) == 2

    def ask():
        while not ends.is_set():
            statuses.append(served.ask("/predict", GOOD, PNG)[0])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    os.kill(before[0], signal.SIGKILL)
    time.sleep(3)
    served.wait_for_workers()
    for pid in served.workers():  # and both at once
        os.kill(pid, signal.SIGKILL)
    time.sleep(3)
    served.wait_for_workers()
    ends.set()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(503) <= 3 * 6  # what the three had, at most all that was asked at that moment
    assert len(set(served.workers()) - set(before)) == 2
    check(served.ask("/predict", png(digits[0]), PNG)[1], predictor(png(digits[0])))


@pytest.mark.slow
def test_workers_end_with_a_server_that_was_killed(served):
    with Served("--ckpt_path", LENET_CKPT, "--draws", "mean", "--workers", 1) as other:
        started = children(other.process.pid)
        other.process.kill()
        other.process.wait()
        end = time.monotonic() + 20
        while any(command_of(pid) for pid in started):
            assert time.monotonic() < end, [command_of(pid) for pid in started]
            time.sleep(0.2)


@pytest.mark.slow
def test_what_is_under_way_is_answered_before_the_server_ends():
    with Served("--ckpt_path", LENET_CKPT, "--draws", "mean", "--workers", 1) as other:
        statuses = []
        body = json.dumps({"images": [text(GOOD)] * 60})
        threads = [
            threading.Thread(target=lambda: statuses.append(other.ask("/predict", body, JSON)[0])) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        other.process.terminate()
        for thread in threads:
            thread.join()
    assert other.process.returncode == 0
    assert statuses == [200] * 12
    assert [line.split()[0] for line in other.lines[-2:]] == ["Serving", "Stopped."]


def test_a_body_that_does_not_arrive_has_a_limit_of_time():
    with (
        Served("--ckpt_path", LENET_CKPT, "--timeout", "1", "--workers", "1") as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection,
    ):
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
        connection.sendall(b"Content-Length: 100\r\n\r\nbegun")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: --ckpt_path"),
        (["--ckpt_path", "nothing.ckpt"], "--ckpt_path: there is no file nothing.ckpt."),
        (["--ckpt_path", LENET_CKPT, "--target_risk", "2"], "--target_risk must be a rate between 0 and 1"),
        (["--ckpt_path", LENET_CKPT, "--target_error", "2"], "--target_error must be"),
        (["--ckpt_path", LENET_CKPT, "--device", "nowhere"], "--device must be one that this machine has, such as cpu"),
        (["--ckpt_path", LENET_CKPT, "--workers", "0"], "argument --workers: must be a whole number from 1 to 256"),
        (["--ckpt_path", LENET_CKPT, "--host", "example.org"], "argument --host: invalid choice"),
        (["--ckpt_path", LENET_CKPT, "--timeout", "nan"], "argument --timeout: must be a number of seconds"),
        (["--ckpt_path", LENET_CKPT, "--port", "80"], "argument --port: must be a whole number from 1,024 to 65,535"),
    ],
)
def test_bad_words_get_a_sentence(words, sentence, capsys):
    from bnn_lightning.__main__ import main as bnn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["bnn", "serve", *map(str, words)])
        assert bnn() == 2
    said = printed(capsys)
    assert sentence in said
    assert "Traceback" not in said


def test_exported_files_are_not_served(tmp_path, capsys, monkeypatch):
    from bnn_lightning.__main__ import main as bnn

    (tmp_path / "lenet.onnx").write_bytes(b"")
    monkeypatch.setattr("sys.argv", ["bnn", "serve", "--ckpt_path", str(tmp_path / "lenet.onnx")])
    assert bnn() == 2
    assert "--ckpt_path must be a checkpoint, got the exported " in printed(capsys)


@pytest.mark.parametrize("joined", [1, 2])
def test_each_checkpoint_is_read_once_before_the_workers_start(joined, networks, monkeypatch):
    from bnn_lightning.checkpoints import record
    from bnn_lightning.serving import command, server

    read, paths = [], [str(networks / f"run{seed}" / "version_0" / "best.ckpt") for seed in range(joined)]
    read_checkpoint = record.read_checkpoint
    monkeypatch.setattr(record, "read_checkpoint", lambda path: read.append(str(path)) or read_checkpoint(path))
    monkeypatch.setattr(server.Server, "run", lambda *_, **__: None)
    threads = torch.get_num_threads()
    assert command.serve(["--ckpt_path", *paths, "--port", str(free_port())]) == 0
    torch.set_num_threads(threads)
    assert read == paths


def test_a_port_that_is_taken(served, capsys):
    programs = {"serve": "bnn_lightning.serving.command:serve"}
    assert main(["serve", "--ckpt_path", str(LENET_CKPT), "--port", str(served.port)], programs=programs) == 2
    assert f"--port must be one that is free, got {served.port}" in printed(capsys)
