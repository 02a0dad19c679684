"""The gRPC service of the Open Inference Protocol, with the messages and stubs of ``tritonclient.grpc``."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

from ..errors import DeadlineExceeded, Overloaded
from .capacity import Visit
from .documents import model_config, model_metadata, model_statistics, server_metadata
from .edge import access
from .models import ServedModel
from .protocol import pick_outputs, timeout_of
from .rejections import Rejected, rejection
from .requests import Array
from .service import Service
from .tensors import DATATYPES, check, from_bytes, from_values

__all__ = ["GrpcService", "add_grpc"]

log = logging.getLogger("evovit.serve")
OPEN = ("ServerLive", "ServerReady")  # as in HTTP: no token, no limit
STREAM_AHEAD = 32  # requests of one stream that may be at work at once
RETRY = (("grpc-retry-pushback-ms", "1000"),)  # what Retry-After is in HTTP; clients with a retry policy heed it
CONTENTS = {"FP32": "fp32_contents", "UINT8": "uint_contents"}


def add_grpc(service: Service, server: Any) -> None:
    """Register the service with a ``grpc.aio`` server."""
    stubs.add_GRPCInferenceServiceServicer_to_server(GrpcService(service), server)


def endpoint(method: Callable[[Any, Any, Any, Visit], Awaitable[Any]]) -> Any:
    """Authorise, count, log, and turn errors into gRPC status codes."""

    @functools.wraps(method)
    async def call(self: GrpcService, request: Any, context: Any) -> Any:
        started, code, visit = time.monotonic(), "OK", Visit(self.service.capacity)
        try:
            if method.__name__ in OPEN:
                return await method(self, request, context, visit)
            self.authorise(context)
            visit.enter()
            return await method(self, request, context, visit)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            answer = rejection(error)
            code = answer.grpc_code
            if not answer.expected:
                log.error("gRPC %s failed", method.__name__, exc_info=error)
        finally:
            visit.leave()
            self.log(method.__name__, visit, code, time.monotonic() - started, context)
        # Here, where the error is gone and with the request let go: grpc keeps what abort raises in a circle, so that its context
        # would stay, images and all, until the garbage collector comes by.
        del request
        trailing = RETRY if answer.status == 503 else ()
        return await context.abort(getattr(grpc.StatusCode, code), answer.reason, trailing)

    return call


class GrpcService(stubs.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The methods of the protocol; those of Triton that have no meaning here answer UNIMPLEMENTED."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def authorise(self, context: Any) -> None:
        """Raise Rejected(401) unless the call carries the token, where one is needed."""
        metadata = dict(context.invocation_metadata() or ())
        if not self.service.allows(metadata.get("authorization")):
            raise Rejected(401, "a valid bearer token is needed.")

    def log(self, name: str, visit: Visit, code: str, seconds: float, context: Any) -> None:
        """Metrics and the access log."""
        if visit.model is not None:
            labels = (visit.model.name, visit.model.version, "grpc")
            self.service.metrics.requests.labels(*labels, code).inc()
            self.service.metrics.seconds.labels(*labels).observe(seconds)
        access(
            time=round(time.time(), 3),
            protocol="grpc",
            client=context.peer(),
            method=name,
            status=code,
            ms=round(seconds * 1000, 3),
            model=visit.model.name if visit.model else None,
            version=visit.model.version if visit.model else None,
            images=visit.images,
            id=visit.id,
        )

    @endpoint
    async def ServerLive(self, request: Any, context: Any, visit: Visit) -> Any:
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    @endpoint
    async def ServerReady(self, request: Any, context: Any, visit: Visit) -> Any:
        """Models are warm and the service is not stopping."""
        return pb.ServerReadyResponse(ready=self.service.ready)

    @endpoint
    async def ModelReady(self, request: Any, context: Any, visit: Visit) -> Any:
        """Whether a model takes requests; one that is not loaded does not."""
        try:
            ready = self.service.models.find(request.name, request.version).ready
        except Overloaded:
            ready = False
        return pb.ModelReadyResponse(ready=ready and not self.service.stopping)

    @endpoint
    async def ServerMetadata(self, request: Any, context: Any, visit: Visit) -> Any:
        """Name, version and extensions of the service."""
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    @endpoint
    async def ModelMetadata(self, request: Any, context: Any, visit: Visit) -> Any:
        """Tensors of a model."""
        model = self.service.models.find(request.name, request.version)
        versions = [request.version] if request.version else self.service.models.versions(model.name)
        return ParseDict(model_metadata(model, versions), pb.ModelMetadataResponse())

    @endpoint
    async def ModelConfig(self, request: Any, context: Any, visit: Visit) -> Any:
        """Configuration of a model in Triton's schema."""
        model = self.service.models.find(request.name, request.version)
        return ParseDict({"config": model_config(model)}, pb.ModelConfigResponse())

    @endpoint
    async def ModelStatistics(self, request: Any, context: Any, visit: Visit) -> Any:
        """Statistics of one model, or of all."""
        models = self.service.models
        found = [models.find(request.name, request.version)] if request.name else models.loaded()
        document = {"model_stats": [model_statistics(model) for model in found]}
        return ParseDict(document, pb.ModelStatisticsResponse())

    @endpoint
    async def RepositoryIndex(self, request: Any, context: Any, visit: Visit) -> Any:
        """Every model and its state."""
        return ParseDict({"models": self.service.models.index(ready=request.ready)}, pb.RepositoryIndexResponse())

    @endpoint
    async def RepositoryModelLoad(self, request: Any, context: Any, visit: Visit) -> Any:
        """Load a model from its file, again if it is loaded."""
        if request.parameters:
            raise Rejected(400, "a model is loaded from the file given at the start; parameters are not taken.")
        await asyncio.to_thread(self.service.models.load, request.model_name)
        return pb.RepositoryModelLoadResponse()

    @endpoint
    async def RepositoryModelUnload(self, request: Any, context: Any, visit: Visit) -> Any:
        """Unload a model."""
        await asyncio.to_thread(self.service.models.unload, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    @endpoint
    async def ModelInfer(self, request: Any, context: Any, visit: Visit) -> Any:
        """Run images; cancelled when the client goes away."""
        return await self._infer(request, context.time_remaining(), visit)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Run the requests of a stream, several at once; answers keep their order, and an error ends its request only."""
        try:
            self.authorise(context)
        except Rejected as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        pending: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue(STREAM_AHEAD)

        async def read() -> None:
            try:
                async for request in requests:
                    await pending.put(asyncio.ensure_future(self._stream_one(request, context)))
            finally:
                await pending.put(None)

        reader = asyncio.ensure_future(read())
        try:
            while (task := await pending.get()) is not None:
                yield await task
        finally:
            reader.cancel()
            while not pending.empty():
                left = pending.get_nowait()
                if left is not None:
                    left.cancel()

    async def _stream_one(self, request: Any, context: Any) -> Any:
        started, code, visit = time.monotonic(), "OK", Visit(self.service.capacity)
        try:
            visit.enter()
            response = await self._infer(request, context.time_remaining(), visit)
            return pb.ModelStreamInferResponse(infer_response=response)
        except Exception as error:
            answer = rejection(error)
            code = answer.grpc_code
            if not answer.expected:
                log.error("gRPC ModelStreamInfer failed", exc_info=error)
            failed = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            return pb.ModelStreamInferResponse(error_message=answer.reason, infer_response=failed)
        finally:
            visit.leave()
            self.log("ModelStreamInfer", visit, code, time.monotonic() - started, context)

    async def _infer(self, request: Any, remaining: float | None, visit: Visit) -> Any:
        model = visit.model = self.service.models.find(request.model_name, request.model_version)
        visit.id = request.id or None
        images = _images(request, model)
        visit.images = len(images)
        outputs = pick_outputs(model.outputs, [output.name for output in request.outputs])
        for output in request.outputs:
            if "classification" in output.parameters or "shared_memory_region" in output.parameters:
                raise Rejected(400, f"output {output.name}: classification and shared memory are not offered.")
        timeout = timeout_of({key: _value(value) for key, value in request.parameters.items()})
        limits = [limit for limit in (timeout, remaining) if limit is not None]
        if limits and min(limits) <= 0:
            raise DeadlineExceeded("the deadline had passed when the request came.")
        results = await self.service.infer(model, images, min(limits, default=None))
        response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
        for info in outputs:
            value = results[info.name]
            response.outputs.add(name=info.name, datatype=DATATYPES[value.dtype.name], shape=value.shape)
            response.raw_output_contents.append(value.tobytes())
        return response


def _images(request: Any, model: ServedModel) -> Array:
    info = model.input
    if len(request.inputs) != 1:
        raise Rejected(400, f"a request has one input, {info.name}; this one has {len(request.inputs)}.")
    tensor = request.inputs[0]
    shape = check(info, tensor.name, tensor.datatype, list(tensor.shape), model.max_images)
    if "shared_memory_region" in tensor.parameters:
        raise Rejected(400, "shared memory is not offered; send the data.")
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1 or tensor.HasField("contents"):
            raise Rejected(400, "one input takes one raw_input_contents, and no contents beside it.")
        return from_bytes(info, shape, request.raw_input_contents[0])
    return from_values(info, shape, list(getattr(tensor.contents, CONTENTS[info.datatype])))


def _value(parameter: Any) -> Any:
    return getattr(parameter, parameter.WhichOneof("parameter_choice") or "string_param")
