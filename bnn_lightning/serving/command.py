"""Serve a checkpoint over HTTP, with a page that shows what it predicts and how certain it is."""

import argparse
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.programs import ProgramParser
from bnn_lightning.deployment.exported import is_export
from bnn_lightning.files import expanded_text
from bnn_lightning.shipped import found

_HOSTS = ("127.0.0.1", "0.0.0.0", "::")


def serve(words: list[str]) -> int:
    """Runs ``bnn serve`` with the arguments ``words``; gives the exit code, 0 when it was asked to end.

    Raises:
        UsageError: when the arguments are wrong, the checkpoint cannot be used, or the port is taken.
    """
    given = _parser().parse_args(words)
    try:
        import litserve  # noqa: F401
        import python_multipart  # noqa: F401
    except ImportError as error:
        package = (error.name or "litserve").replace("_", "-")
        raise UsageError(
            f"bnn serve needs {package}, which is not installed: pip install 'bnn_lightning[serve]'."
        ) from None
    server = _server(given)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        # The server warns at its end that its threads have ended; the reader of forms, of each bad form.
        for name in ("litserve", "litserve.server", "python_multipart"):
            logging.getLogger(name).setLevel(logging.ERROR)
        server.run(given.host, given.port, num_api_servers=1, log_level="warning", generate_client_file=False)
    except (RuntimeError, EOFError, ConnectionError) as error:
        raise UsageError(f"the server has ended: {str(error) or type(error).__name__}.") from error
    finally:
        signal.signal(signal.SIGTERM, previous)
        for process in multiprocessing.active_children():
            process.terminate()
    print("Stopped.")
    return 0


def _server(given: argparse.Namespace) -> Any:
    """The server that was asked for; the checkpoint has been loaded once, and found to be good."""
    from bnn_lightning.checkpoints.record import CheckpointError
    from bnn_lightning.serving.information import information, kind_of
    from bnn_lightning.serving.inputs import Limits
    from bnn_lightning.serving.server import Server
    from bnn_lightning.serving.worker import Model, PredictorAPI

    _check_port(given.host, given.port)
    model = Model(
        paths=tuple(found(expanded_text(path), "checkpoint") for path in given.ckpt_path),
        samples=given.samples,
        draws=given.draws,
        device=given.device,
        target_risk=given.target_risk,
        alpha=given.alpha,
        target_error=given.target_error,
        code=None if given.code is None else expanded_text(given.code),
        threads=given.threads or max(1, _cores() // given.workers),
    )
    for path in model.paths:
        if is_export(Path(path)):
            raise UsageError(f"--ckpt_path must be a checkpoint, got the exported {path}; Predictor.load takes it.")
    limits = Limits(given.max_bytes, given.max_examples, given.max_pixels)
    try:
        record = model.record()
        predictor = model.load(record)
    except CheckpointError as error:
        raise UsageError(f"--ckpt_path: {error}") from error
    except ValueError as error:  # begins with the argument's name
        raise UsageError(f"--{str(error).replace('path must', 'ckpt_path must', 1)}") from error
    kind = kind_of(predictor)
    if kind is None:
        raise UsageError(
            f"--ckpt_path must be a checkpoint that says how its examples are prepared, got {record.path}, which was "
            "trained with a data module of your own."
        )
    print(f"{predictor!r}", flush=True)
    address = f"http://{'[::1]' if given.host == '::' else given.host}:{given.port}"
    return Server(
        PredictorAPI(model, given.max_batch, limits.max_pixels, given.timeout),
        kind,
        information(predictor, record, model, limits),
        limits,
        given.workers,
        given.timeout,
        address,
    )


def _check_port(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if host == "::" else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        raise UsageError(f"--port must be one that is free, got {port} on {host}: {error.strerror}.") from None


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _interrupt(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough, and ending takes a moment
    raise KeyboardInterrupt


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number in a range, for argparse."""

    def read(text: str) -> int:
        what = f"a whole number of {low:,} or more" if high is None else f"a whole number from {low:,} to {high:,}"
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = ProgramParser(
        prog="bnn serve",
        description="Answer POST /predict (image bytes, a form, or JSON), GET /health and GET /info, and show a page "
        "at /. docs/deploying.md has examples. There are no passwords: what is reachable from other machines stands "
        "behind a proxy that has them.",
    )
    add = parser.add_argument
    add(
        "--ckpt_path",
        nargs="+",
        required=True,
        metavar="FILE",
        help="a checkpoint, a run's folder, the name of a checkpoint that comes with the package, or several to join",
    )
    add("--code", metavar="FOLDER", help="where modules of your own are")
    add("--samples", type=_whole(1), metavar="N", help="of the network's outputs (what the checkpoint says)")
    add("--draws", choices=("weights", "local", "mean", "moments"), help="how they are drawn (likewise)")
    add("--target_risk", type=float, default=0.01, metavar="RATE", help="of accepted predictions (%(default)s)")
    add("--alpha", type=float, default=0.05, metavar="RATE", help="at which prediction sets miss (%(default)s)")
    add("--target_error", type=float, metavar="X", help="where labels are numbers, the largest that is no mistake")
    add("--device", default="cpu", help="that computes (%(default)s)")
    add("--host", choices=_HOSTS, default=_HOSTS[0], help="whom it answers: this machine alone, or all that reach it")
    add("--port", type=_whole(1024, 65535), default=8000, metavar="N", help="(%(default)s)")
    add("--workers", type=_whole(1, 256), default=2, metavar="N", help="processes that predict (%(default)s)")
    add("--threads", type=_whole(1), metavar="N", help="of each worker (the cores, shared among workers)")
    add("--max_batch", type=_whole(1), default=32, metavar="N", help="requests predicted together (%(default)s)")
    add("--max_bytes", type=_whole(1), default=10_000_000, metavar="N", help="of a request (%(default)s)")
    add("--max_examples", type=_whole(1), default=64, metavar="N", help="images or rows of a request (%(default)s)")
    add("--max_pixels", type=_whole(1), default=25_000_000, metavar="N", help="of a request's images (%(default)s)")
    add("--timeout", type=_seconds, default=30.0, metavar="S", help="seconds for an answer (%(default)s)")
    return parser
