"""The server: routes, a queue before several workers, and workers that are started again when they have died."""

import asyncio
import base64
import hashlib
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn
from litserve import LitServer
from litserve.utils import LitAPIStatus, ResponseBufferItem, WorkerSetupStatus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bnn_lightning.serving.inputs import Kind, Limits, RefusedError, examples_of
from bnn_lightning.serving.worker import FAILED, PredictorAPI, as_json

_MOST_WAITING = 1000
"""Requests that wait for a worker; whoever comes then is told to come again."""

_WATCH = 0.5
"""Seconds between two looks at the workers."""

_GRACE = 5
"""Seconds for what is under way when the server is asked to end."""

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Server(LitServer):
    """LitServe's queue and workers, with one HTTP server, in a thread of this process.

    LitServe keeps what it waits for in the memory of each HTTP process, where whoever restarts a worker cannot see it:
    requests that a dead worker had taken would wait for ever. Here both are tasks of one event loop.

    Args:
        api: what workers do.
        kind: of the examples.
        info: what ``/info`` says, plain values.
        limits: of a request.
        workers: processes.
        timeout: seconds for a request to arrive, and from then to its answer.
        address: that is printed once it is served.
    """

    def __init__(
        self,
        api: PredictorAPI,
        kind: Kind,
        info: Mapping[str, Any],
        limits: Limits,
        workers: int,
        timeout: float,
        address: str,
    ):
        self._kind, self._limits, self._address = kind, limits, address
        self._info, self._page = as_json(info), _Page()
        super().__init__(
            api,
            accelerator="cpu",  # the API's own device is where it computes
            workers_per_device=workers,
            timeout=timeout,
            restart_workers=True,  # workers say what they have taken
            disable_openapi_url=True,  # its page loads scripts of another host
        )
        self._monitor_workers = False  # _watch does it

    def register_endpoints(self) -> None:
        self.app.add_route("/", self._page.get, methods=["GET"])
        self.app.add_route("/predict", self._predict, methods=["POST"])
        self.app.add_route("/health", self._health, methods=["GET"])
        self.app.add_route("/info", self._get_info, methods=["GET"])
        for kind, handler in ((RefusedError, _refused), (HTTPException, _of_starlette), (Exception, _failed)):
            self.app.add_exception_handler(kind, handler)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._watch())]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _predict(self, request: Request) -> Response:
        if len(self.response_buffer) >= _MOST_WAITING:
            raise RefusedError(503, f"{_MOST_WAITING:,} requests are waiting; come again.")
        try:
            examples = await asyncio.wait_for(examples_of(request, self._kind, self._limits), self.timeout)
        except TimeoutError:
            raise RefusedError(408, f"The request has not arrived within {self.timeout:g} seconds.") from None
        uid, waiting = uuid.uuid4().hex, ResponseBufferItem(asyncio.Event())
        self.response_buffer[uid] = waiting
        try:
            self._get_request_queue(self.lit_api.api_path).put((0, uid, time.monotonic(), examples))
            await asyncio.wait_for(waiting.event.wait(), self.timeout)
        except TimeoutError:
            raise RefusedError(503, f"No worker has answered within {self.timeout:g} seconds; come again.") from None
        finally:
            del self.response_buffer[uid]
        answer, status = waiting.response
        if status == LitAPIStatus.ERROR:  # an exception of the worker is in its log, and is not unpickled here
            if answer is None:
                raise RefusedError(503, "The worker that had this request has died, and is started again; come again.")
            raise RefusedError(500, FAILED)
        return Response(answer.body, answer.status, _HEADERS, "application/json")

    def _health(self, request: Request) -> Response:
        statuses = dict(self.workers_setup_status)
        endpoint = self.lit_api.api_path.strip("/")
        ready = sum(
            process.is_alive() and statuses.get(f"{endpoint}_{number}") == WorkerSetupStatus.READY
            for number, process in enumerate(self.inference_workers)
        )
        content = {"status": "ok" if ready else "no worker", "ready": ready, "workers": len(self.inference_workers)}
        return Response(as_json(content), 200 if ready else 503, _HEADERS, "application/json")

    async def _get_info(self, request: Request) -> Response:
        return Response(self._info, 200, _HEADERS, "application/json")

    async def _receive(self) -> None:
        """Hears what workers say, and wakes whoever waits for it."""
        while True:
            for message in await self._transport.areceive(0) or ():
                waiting = self.response_buffer.get(message.uid)
                if waiting is None:  # for whom it was too late
                    continue
                if message.status == LitAPIStatus.START:
                    waiting.worker_id = message.worker
                else:
                    waiting.response = message.answer, message.status
                    waiting.event.set()

    async def _watch(self) -> None:
        """Starts workers again that have died, and answers for them."""
        while True:
            await asyncio.sleep(_WATCH)
            for number, process in enumerate(self.inference_workers):
                if process.is_alive():
                    continue
                # What it had finished before it died comes first.
                await asyncio.sleep(_WATCH)
                for waiting in self.response_buffer.values():
                    if waiting.worker_id == number and not waiting.event.is_set():
                        waiting.response = (None, LitAPIStatus.ERROR)
                        waiting.event.set()
                print(f"Worker {number} has died ({process.exitcode}), and is started again.", flush=True)
                self.inference_workers[number] = self.launch_single_inference_worker(self.lit_api, number)

    def _init_manager(self, num_api_servers: int) -> Any:
        manager = super()._init_manager(num_api_servers)
        self.lit_api.queue_process = manager._process.pid
        return manager

    def _perform_graceful_shutdown(
        self, manager: Any, uvicorn_workers: dict[int, "_HTTPThread"], shutdown_reason: str = "normal"
    ) -> None:
        for thread in uvicorn_workers.values():  # first, so that what is under way is answered
            thread.terminate()
            thread.join(timeout=2 * _GRACE)
        super()._perform_graceful_shutdown(manager, uvicorn_workers, shutdown_reason)

    def _start_server(
        self,
        port: int,
        num_uvicorn_servers: int,
        log_level: str,
        sockets: list[socket],
        uvicorn_worker_type: str,
        **kwargs: Any,
    ) -> dict[int, "_HTTPThread"]:
        self.app.response_queue_id = 0
        config = uvicorn.Config(
            self.app, log_level=log_level, access_log=False, timeout_graceful_shutdown=_GRACE, **kwargs
        )
        thread = _HTTPThread(_HTTPServer(config, self._address), sockets)
        thread.start()
        return {0: thread}


class _HTTPServer(uvicorn.Server):
    """uvicorn's, which says where it is once it can be reached."""

    def __init__(self, config: uvicorn.Config, address: str):
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"Serving at {self._address}; Ctrl-C ends it.", flush=True)


class _HTTPThread(threading.Thread):
    """The HTTP server in a thread, with what LitServe calls to end it."""

    def __init__(self, server: uvicorn.Server, sockets: list[socket]):
        super().__init__(name="http", daemon=True)
        self._server, self._sockets = server, sockets

    def run(self) -> None:
        self._server.run(self._sockets)

    def terminate(self) -> None:
        self._server.should_exit = True

    def kill(self) -> None:
        self._server.force_exit = True


class _Page:
    """The page, with a policy by which a browser runs its own script and style, and loads nothing from elsewhere."""

    def __init__(self) -> None:
        self._text = Path(__file__).with_name("page.html").read_text("utf-8")
        script, style = (self._hash(tag) for tag in ("script", "style"))
        self._headers = _HEADERS | {
            "Content-Security-Policy": f"default-src 'none'; script-src {script}; style-src {style}; connect-src "
            "'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
        }

    async def get(self, request: Request) -> Response:
        return HTMLResponse(self._text, 200, self._headers)

    def _hash(self, tag: str) -> str:
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", self._text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _said(status: int, sentence: str) -> Response:
    headers = _HEADERS | ({"Retry-After": "2"} if status == 503 else {})
    return Response(as_json({"error": sentence}), status, headers, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _said(error.status, error.sentence)


async def _of_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence, headers = f"{error.detail}.", dict(error.headers or {})
    if error.status_code == 404:
        sentence = "There is no such page; there are /, /predict, /health and /info."
    elif error.status_code == 405:
        methods = " or ".join(sorted(headers["Allow"].split(", ")))
        sentence = f"{request.url.path} takes {methods}, got {request.method}."
    answer = _said(error.status_code, sentence)
    answer.headers.update(headers)
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    return _said(500, "The server has failed; its log says why.")
