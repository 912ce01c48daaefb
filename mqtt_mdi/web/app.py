"""What can be asked over HTTP."""

import json
import logging
from functools import partial
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mqtt_mdi import __version__
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.types import Count
from mqtt_mdi.errors import StorageError
from mqtt_mdi.runtime.coordinator import Answer, CoordinatorShell
from mqtt_mdi.web.exposition import metrics_of
from mqtt_mdi.web.feed import Feed, ask
from mqtt_mdi.web.files import STATIC
from mqtt_mdi.web.flows import Flows
from mqtt_mdi.web.guard import read_body
from mqtt_mdi.web.history import History
from mqtt_mdi.web.view import View, find, look, tell
from mqtt_mdi.wire.messages import PolicyReply, explain
from mqtt_mdi.wire.schemas import json_schemas

log = logging.getLogger(__name__)

MAX_EDIT = 2**18
LONGEST_S = 7 * 24 * 3600
FIRST_DIGITS = 9


@dataclass(frozen=True)
class Edit:
    """A change of policy: a JSON merge patch, and the version it was made for."""

    patch: dict[str, object]
    expected: Annotated[Count | None, Field(default=None)] = None


_EDIT = TypeAdapter(Edit)


class Site:
    """The routes of one coordinator's page."""

    def __init__(self, shell: CoordinatorShell) -> None:
        manifest = shell.manifest
        pipeline = shell.topics.pipeline
        self.feed = Feed(self._event)
        self._shell = shell
        self._flows = Flows()
        self._history = History(shell.settings.database, pipeline, manifest.classes)
        self._about = {
            "version": __version__,
            "pipeline": pipeline,
            "broker": str(shell.connection.url),
            "model": manifest.name,
            "classes": manifest.classes,
            "stages": manifest.stage_count,
            "macs_shares": manifest.macs_shares,
            "exit_accuracy": manifest.exit_accuracy,
            "planned": [name for name, strategy in STRATEGIES.items() if strategy.planned],
            "strategies": {name: strategy.about for name, strategy in STRATEGIES.items()},
        }
        self._schema = json_schemas()["policy-patch"]

    def app(self) -> Starlette:
        """The application."""
        routes = [
            Route("/", lambda _request: FileResponse(STATIC / "index.html")),
            Route("/api/about", lambda _request: JSONResponse(self._about)),
            Route("/api/schema", lambda _request: JSONResponse(self._schema)),
            Route("/api/snapshot", self._snapshot),
            Route("/api/events", self._events),
            Route("/api/devices", self._devices),
            Route("/api/history", self._over_time),
            Route("/api/recent", lambda _request: JSONResponse(self._history.recent())),
            Route("/api/policy", self._policy),
            Route("/api/policy", self._change, methods=["POST"]),
            Route("/metrics", metrics_of(self._shell)),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(
            routes=routes,
            exception_handlers={
                StorageError: lambda _request, error: _fault(503, str(error)),
                TimeoutError: lambda _request, _error: _fault(503, "the coordinator does not answer"),
                HTTPException: _http_fault,
            },
        )

    def close(self) -> None:
        """Let go of the database."""
        self._history.close()

    async def _look(self) -> View:
        return await ask(self._shell, lambda answer: answer(look(self._shell)))

    async def _now(self) -> dict[str, object]:
        view = await self._look()
        return tell(view, self._flows.take(view.devices))

    async def _event(self) -> bytes:
        return f"data: {json.dumps(await self._now(), separators=(',', ':'))}\n\n".encode()

    async def _snapshot(self, _request: Request) -> Response:
        return JSONResponse(await self._now())

    async def _events(self, _request: Request) -> Response:
        if self.feed.full:
            return _fault(503, "too many watch already: close some of the pages")
        return StreamingResponse(self.feed.events(), media_type="text/event-stream")

    async def _devices(self, request: Request) -> Response:
        words, first = request.query_params.get("search", ""), request.query_params.get("first", "0")
        if not (first.isascii() and first.isdigit() and len(first) <= FIRST_DIGITS):
            return _fault(400, "first is a number from 0 on")
        view = await self._look()
        return JSONResponse(find(view, self._flows.take(view.devices), words, int(first)))

    def _over_time(self, request: Request) -> Response:
        try:
            seconds = int(request.query_params.get("seconds", "300"))
            since = float(request.query_params.get("since", "0"))
        except ValueError:
            return _fault(400, "seconds and since are numbers")
        return JSONResponse(self._history.over_time(min(max(seconds, 1), LONGEST_S), since))

    async def _policy(self, _request: Request) -> Response:
        """What is in force, also while the database cannot be read, and how it came to be."""
        view = await self._look()
        try:
            history = await run_in_threadpool(self._history.policies)
        except StorageError as error:
            history = []
            log.warning("the page cannot read old policies: %s", error)
        return JSONResponse(
            {"policy": view.policy.model_dump(mode="json", exclude_none=True), "history": history}
        )

    async def _change(self, request: Request) -> Response:
        """Publish a change through the very path of `policy/set`."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _fault(415, "a change of policy is application/json")
        body = await read_body(request, MAX_EDIT)
        if body is None:
            return _fault(413, f"a change of policy has at most {MAX_EDIT} bytes")
        try:
            edit = _EDIT.validate_json(body, strict=True)
        except ValidationError as error:
            return _fault(400, f"change of policy: {explain(error)}")

        def change(payload: bytes, answer: Answer) -> None:
            self._shell.edit(payload, edit.expected, answer)

        reply: PolicyReply = await ask(self._shell, partial(change, json.dumps(edit.patch).encode()))
        told = {"accepted": reply.accepted, "version": reply.version, "reason": reply.reason}
        return JSONResponse(told, status_code=200 if reply.accepted else 409)


def _fault(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def _http_fault(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _fault(error.status_code, error.detail)
