"""The outermost layer of the HTTP service: who may pass, how errors look, and one line of log for each request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .capacity import Visit
from .logs import access, shown
from .rejections import Rejected, rejection
from .service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Edge"]

log = logging.getLogger("evovit.serve")
LARGE = 1 << 16  # bytes; what the transport takes without waiting
OPEN = ("/v2/health/live", "/v2/health/ready")  # what an orchestrator probes: no token, no limit


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        from starlette.exceptions import HTTPException

        self._app, self._service, self._http_exception = app, service, HTTPException

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event of uvicorn."""
        if scope["type"] != "http":
            return
        started = time.monotonic()
        status = sent = 0

        async def counting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                return await send(message)
            body = message.get("body", b"")
            sent += len(body)
            if len(body) > LARGE and not message.get("more_body"):
                # Until a client has read most of it, a large answer keeps its place and its memory.
                await send({**message, "more_body": True})
                message = {**message, "body": b""}
            return await send(message)

        visit = scope["evovit"] = Visit(self._service.capacity)
        scope["app"] = self  # tells the router to raise for what it does not know, rather than to answer
        try:
            if (
                scope["path"].removeprefix(scope.get("root_path", "")) in OPEN
            ):  # answered under any load, or an orchestrator would end a busy service
                await self._app(scope, receive, counting)
            else:
                self._authorise(scope)
                if scope["method"] != "POST":  # those enter when their body is here
                    visit.enter()
                await self._app(scope, receive, counting)
        except self._http_exception as error:  # of the router: no such path, or another method
            await _refuse(counting, error.status_code, str(error.detail), error.headers)
        except Exception as error:
            answer = rejection(error)
            if not answer.expected:
                log.error("%s %s failed", scope["method"], shown(scope["path"]), exc_info=error)
            if status:  # it has begun, so it cannot become an error any more: end the connection
                raise
            # The rest of a body that was given up may never come.
            close = {"Connection": "close"} if answer.status == 408 or visit.lost else None
            await _refuse(counting, answer.status, answer.reason, close)
        finally:
            visit.leave()
            self._note(scope, status, sent, time.monotonic() - started)

    def _authorise(self, scope: Scope) -> None:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if not self._service.allows(None if given is None else given.decode("latin-1")):
            raise Rejected(401, "a valid bearer token is needed.")

    def _note(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        visit = scope["evovit"]
        model = visit.model
        if model is not None:
            labels = (model.name, model.version)
            self._service.metrics.requests.labels(*labels, "http", str(status)).inc()
            self._service.metrics.seconds.labels(*labels, "http").observe(seconds)
        client = scope.get("client")
        access(
            time=round(time.time(), 3),
            protocol="http",
            client=client[0] if client else None,
            method=scope["method"],
            path=scope["path"],
            status=status,
            ms=round(seconds * 1000, 3),
            bytes_out=sent,
            model=None if model is None else model.name,
            version=None if model is None else model.version,
            images=visit.images,
            id=visit.id,
        )


async def _refuse(send: Send, status: int, reason: str, extra: Mapping[str, str] | None = None) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in (extra or {}).items()]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
