"""The HTTP service: Open Inference Protocol (KServe v2), image classification, health, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..engines.batching.requests import Outputs, TransformChanged
from .bodies import compress, read_body
from .classify import classified, top_classes
from .documents import model_config, model_metadata, model_statistics, server_metadata
from .edge import Edge
from .json_body import MAX_DOCUMENT
from .models import ServedModel
from .openapi import openapi, page
from .protocol import InferRequest, encode_response, parse_request
from .rejections import Rejected
from .service import Service
from .waiting import result_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

__all__ = ["build_app"]

IMAGE_TYPES = ("image/jpeg", "image/png", "application/octet-stream")
# Above these sizes a request is read, and an answer is written, in a thread: at about 3 ms of work.
MUCH_JSON, MUCH_BINARY, MANY_VALUES = 1 << 17, 4 << 20, 1 << 13  # bytes, bytes, numbers
HEADER_LENGTH = "Inference-Header-Content-Length"


def build_app(service: Service) -> ASGIApp:
    """Return the ASGI application of a service."""
    from starlette.routing import Route, Router

    http = Http(service)
    prefixes = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    # Tried in this order, so what is called most comes first.
    routes = [Route(f"{prefix}/infer", http.infer, methods=["POST"]) for prefix in prefixes]
    routes += [
        Route("/v1/classify", http.classify, methods=["POST"]),
        Route("/v2", http.server),
        Route("/v2/health/live", http.live),
        Route("/v2/health/ready", http.ready),
        Route("/v2/models/stats", http.all_statistics),
        Route("/v2/repository/index", http.index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", http.load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", http.unload, methods=["POST"]),
        Route("/metrics", http.metrics),
        Route("/openapi.json", http.openapi),
        Route("/docs", http.docs),
    ]
    for prefix in prefixes:
        routes += [
            Route(prefix, http.metadata),
            Route(f"{prefix}/ready", http.model_ready),
            Route(f"{prefix}/config", http.config),
            Route(f"{prefix}/stats", http.statistics),
        ]

    # A bare router: Starlette's own middleware would answer errors before the edge does.
    return Edge(Router(routes, redirect_slashes=False), service)


class Http:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        from starlette.responses import JSONResponse, Response

        self._service = service
        self._json, self._response = JSONResponse, Response

    async def server(self, request: Request) -> Response:
        """GET /v2"""
        return self._json(server_metadata())

    async def live(self, request: Request) -> Response:
        """GET /v2/health/live: the process answers."""
        return self._json({"live": True})

    async def ready(self, request: Request) -> Response:
        """GET /v2/health/ready: models are warm and the service is not stopping."""
        ready = self._service.ready
        return self._json({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        """GET /v2/models/NAME"""
        model = self._model(request)
        version = request.path_params.get("version")
        return self._json(model_metadata(model, [version] if version else self._service.models.versions(model.name)))

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/NAME/ready"""
        model = self._model(request)
        ready = model.ready and not self._service.stopping
        return self._json({"name": model.name, "ready": ready}, 200 if ready else 503)

    async def config(self, request: Request) -> Response:
        """GET /v2/models/NAME/config"""
        return self._json(model_config(self._model(request)))

    async def statistics(self, request: Request) -> Response:
        """GET /v2/models/NAME/stats"""
        return self._json({"model_stats": [model_statistics(self._model(request))]})

    async def all_statistics(self, request: Request) -> Response:
        """GET /v2/models/stats"""
        return self._json({"model_stats": [model_statistics(model) for model in self._service.models.loaded()]})

    async def index(self, request: Request) -> Response:
        """POST /v2/repository/index"""
        document = await self._document(request)
        return self._json(self._service.models.index(ready=document.get("ready") is True))

    async def load(self, request: Request) -> Response:
        """POST /v2/repository/models/NAME/load: from its file, again if it is loaded"""
        if (await self._document(request)).get("parameters"):
            raise Rejected(400, "a model is loaded from the file given at the start; parameters are not taken.")
        await self._service.load_in_thread(self._service.models.load, request.path_params["name"])
        return self._json({})

    async def unload(self, request: Request) -> Response:
        """POST /v2/repository/models/NAME/unload"""
        await self._document(request)
        await self._service.load_in_thread(self._service.models.unload, request.path_params["name"])
        return self._json({})

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/NAME/infer"""
        model = self._model(request)
        headers, visit = request.headers, request.scope["evovit"]
        asked = await self._asked(request, model)
        visit.images, visit.id = len(asked.images), asked.id
        work = model.infer(asked.images, asked.timeout)
        outputs = await result_of(work, gone=_disconnect(request.receive))
        accepted = headers.get("accept-encoding", "")
        if sum(value.size for value in outputs.values()) > MANY_VALUES:
            answer, head, coding = await asyncio.to_thread(_answer, model, asked, outputs, accepted)
        else:
            answer, head, coding = _answer(model, asked, outputs, accepted)
        visit.take(len(answer) - visit.size)  # the request is done with
        extra = {} if coding is None else {"Content-Encoding": coding}
        if head is None:
            return self._response(answer, headers=extra, media_type="application/json")
        extra[HEADER_LENGTH] = str(head)
        return self._response(answer, headers=extra, media_type="application/octet-stream")

    async def classify(self, request: Request) -> Response:
        """POST /v1/classify?model=NAME&version=N&top_k=5"""
        service, query = self._service, request.query_params
        name, version = query.get("model"), query.get("version", "")
        model = service.models.find(name, version) if name else service.models.default(version)
        request.scope["evovit"].model = model
        top_k = query.get("top_k", "5").lstrip("0")
        if not (top_k.isascii() and top_k.isdigit()):
            raise Rejected(400, "top_k must be a whole number from 1.")
        kind = request.headers.get("content-type", IMAGE_TYPES[-1]).partition(";")[0].strip().lower()
        if kind not in IMAGE_TYPES:
            raise Rejected(
                415, f"the content type must be one of {', '.join(IMAGE_TYPES)}; the body is the image itself."
            )
        body = await self._body(request, service.settings.max_bytes)
        work, limit = self._classify(model, body), service.settings.timeout
        outputs = await result_of(work, seconds=limit, gone=_disconnect(request.receive))
        top = top_classes(model, outputs, int(top_k[:9]))
        return self._json({"model": model.name, "version": model.version, "top": top})

    async def _classify(self, model: ServedModel, body: bytes) -> dict[str, Any]:
        service = self._service
        while True:
            prepared = await classified(body, model, service.threads, service.pixels, service.settings.max_pixels)
            with contextlib.suppress(
                TransformChanged
            ):  # the model was reloaded meanwhile: prepare the image for the new one
                return await model.infer(prepared.images, None, prepared.transform)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics"""
        from prometheus_client import CONTENT_TYPE_LATEST

        return self._response(self._service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json"""
        return self._json(openapi())

    async def docs(self, request: Request) -> Response:
        """GET /docs"""
        return self._response(page(), media_type="text/html")

    def _model(self, request: Request) -> ServedModel:
        parameters = request.path_params
        model = self._service.models.find(parameters["name"], parameters.get("version", ""))
        request.scope["evovit"].model = model
        return model

    async def _body(self, request: Request, limit: int) -> bytes:
        """The body; from here on the request has its place among those at work."""
        visit = request.scope["evovit"]
        visit.check()  # before it is read for nothing
        body = await read_body(request, visit, limit, self._service.settings.body_timeout)
        visit.enter()
        return body

    async def _asked(self, request: Request, model: ServedModel) -> InferRequest:
        visit, length = request.scope["evovit"], request.headers.get(HEADER_LENGTH)
        body = await self._body(request, model.max_body)
        size = len(body)
        parse = functools.partial(parse_request, body, length, model.input, model.outputs, model.max_images)
        if size > MUCH_BINARY or (length is None and size > MUCH_JSON):
            asked = await result_of(  # the work has no name here: with its error, this frame and the body it would be a circle
                asyncio.get_running_loop().run_in_executor(self._service.readers, parse),
                seconds=self._service.settings.timeout,
                gone=_disconnect(request.receive),
            )
        else:
            asked = parse()
        if asked.images.base is None:  # not a view of the body, which goes now
            visit.take(asked.images.nbytes - size)
        return asked

    async def _document(self, request: Request) -> dict[str, Any]:
        """The JSON object of a request to the repository, which may be left out."""
        body = await self._body(request, MAX_DOCUMENT)
        try:
            document = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise Rejected(400, "the body must be a JSON object.")
        return document


def _answer(
    model: ServedModel, asked: InferRequest, outputs: Outputs, accepted: str
) -> tuple[bytes, int | None, str | None]:
    """Body, length of its JSON part where there is another, and content coding."""
    answer, head = encode_response(model.name, model.version, asked, outputs)
    answer, coding = compress(answer, accepted)
    return answer, head, coding


async def _disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
