"""The gRPC service of the Open Inference Protocol, with the messages of ``tritonclient.grpc``."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb

from ..errors import DeadlineExceeded, EvoVitError, Overloaded
from .bodies import unpacked
from .capacity import Visit
from .documents import model_config, model_metadata, model_statistics, server_metadata
from .grpc_endpoint import COPIES, SERVICE, endpoint
from .grpc_messages import InferMessage, coding_of, parse
from .grpc_streams import Streams
from .hanging_up import hang_up
from .logs import access
from .memory import grpc_turns
from .protocol import pick_outputs, timeout_of
from .rejections import Rejected, rejection
from .service import Service
from .tensors import DATATYPES
from .turns import MessageTurns
from .waiting import result_of

__all__ = ["GrpcService", "add_grpc"]

log = logging.getLogger("evovit.serve")
PATIENCE = 2.0  # seconds after which a message that still arrives is given up if others wait
UNREAD = 5.0  # seconds that a client has to read its answer when half of the memory or of the places is used
SWEEP = 1.0  # seconds between looks at what clients have not read


def add_grpc(service: Service, server: Any) -> GrpcService:
    """Register the service with a ``grpc.aio`` server; its streams are to be stopped before it."""
    methods = GrpcService(service)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, methods.handlers()),))
    return methods


class GrpcService:
    """The methods of the protocol; those of Triton that have no meaning here answer UNIMPLEMENTED."""

    def __init__(self, service: Service) -> None:
        self.service = service
        settings = service.settings
        self._turns = MessageTurns(grpc_turns(settings), settings.max_concurrent, PATIENCE)
        self.streams = Streams(settings.max_streams)

    def handlers(self) -> dict[str, Any]:
        """Return what grpc calls, by the name of the method; messages are bytes."""
        return {
            name: grpc.stream_stream_rpc_method_handler(getattr(self, name))
            if method.server_streaming
            else grpc.stream_unary_rpc_method_handler(getattr(self, name))
            for name, method in SERVICE.methods_by_name.items()
            if hasattr(self, name)
        }

    async def receive(self, messages: Any, visit: Visit, kind: Any) -> Any:
        """Return the one message of a call, as :func:`parse` gives it.

        Raises:
            Rejected: It takes too long, is damaged, or too large.
            Overloaded: There is no memory for it.
        """
        seconds = self.service.settings.body_timeout
        try:
            data = await result_of(self._turns.read(visit, functools.partial(_next, messages)), seconds=seconds)
        except asyncio.TimeoutError:
            raise Rejected(408, f"the message did not arrive within {seconds:g} s.") from None
        return await self.read(data, visit, kind)

    async def read(self, data: bytes, visit: Visit, kind: Any) -> Any:
        """Return a message from its bytes; see :meth:`receive`."""
        visit.take(len(data))
        coding = coding_of(data)
        if coding is not None:
            data = await unpacked(data, visit, coding, self.service.settings.max_bytes)
        return parse(kind, data)

    async def watch(self) -> None:
        """End the connections of clients that do not read their answers, for ever."""
        while True:
            await asyncio.sleep(SWEEP)
            seconds = self.service.settings.body_timeout
            unread = self.service.capacity.unread(seconds / SWEEP, UNREAD / SWEEP)
            peers = {visit.peer for visit in unread if visit.peer is not None}
            if peers:
                ended = await asyncio.to_thread(hang_up, peers)
                log.warning("gRPC: %d clients did not read their answers; %d connections ended", len(peers), ended)

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
        """Return whether a model takes requests; one that is not loaded does not."""
        try:
            ready = self.service.models.find(request.name, request.version).ready
        except Overloaded:
            ready = False
        return pb.ModelReadyResponse(ready=ready and not self.service.stopping)

    @endpoint
    async def ServerMetadata(self, request: Any, context: Any, visit: Visit) -> Any:
        """Return the name, version and extensions of the service."""
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    @endpoint
    async def ModelMetadata(self, request: Any, context: Any, visit: Visit) -> Any:
        """Return the tensors of a model."""
        model = self.service.models.find(request.name, request.version)
        versions = [request.version] if request.version else self.service.models.versions(model.name)
        return ParseDict(model_metadata(model, versions), pb.ModelMetadataResponse())

    @endpoint
    async def ModelConfig(self, request: Any, context: Any, visit: Visit) -> Any:
        """Return the configuration of a model in Triton's schema."""
        model = self.service.models.find(request.name, request.version)
        return ParseDict({"config": model_config(model)}, pb.ModelConfigResponse())

    @endpoint
    async def ModelStatistics(self, request: Any, context: Any, visit: Visit) -> Any:
        """Return the statistics of one model, or of all."""
        models = self.service.models
        found = [models.find(request.name, request.version)] if request.name else models.loaded()
        document = {"model_stats": [model_statistics(model) for model in found]}
        return ParseDict(document, pb.ModelStatisticsResponse())

    @endpoint
    async def RepositoryIndex(self, request: Any, context: Any, visit: Visit) -> Any:
        """Return every model and its state."""
        return ParseDict({"models": self.service.models.index(ready=request.ready)}, pb.RepositoryIndexResponse())

    @endpoint
    async def RepositoryModelLoad(self, request: Any, context: Any, visit: Visit) -> Any:
        """Load a model from its file, again if it is loaded."""
        if request.parameters:
            raise Rejected(400, "a model is loaded from the file given at the start; parameters are not taken.")
        await self.service.load_in_thread(self.service.models.load, request.model_name)
        return pb.RepositoryModelLoadResponse()

    @endpoint
    async def RepositoryModelUnload(self, request: Any, context: Any, visit: Visit) -> Any:
        """Unload a model."""
        await self.service.load_in_thread(self.service.models.unload, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    @endpoint
    async def ModelInfer(self, request: Any, context: Any, visit: Visit) -> Any:
        """Run images; cancelled when the client goes away."""
        return await self._infer(request, context.time_remaining(), visit)

    async def ModelStreamInfer(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Run the requests of a stream, several at once; answers keep their order, and an error ends its request only."""
        try:
            self.authorise(context)
            one = functools.partial(self._stream_one, context)
            async for answer in self.streams.answers(messages, context.peer(), one):
                yield answer
        except EvoVitError as error:
            refusal = rejection(error)
            await context.abort(getattr(grpc.StatusCode, refusal.grpc_code), refusal.reason)

    async def _stream_one(self, context: Any, data: bytes) -> tuple[bytes, Visit]:
        started, code, visit = time.monotonic(), "OK", Visit(self.service.capacity)
        message = None
        try:
            visit.check()
            message = await self.read(data, visit, pb.ModelInferRequest)
            visit.enter()
            response = await self._infer(message, context.time_remaining(), visit)
            answer = pb.ModelStreamInferResponse(infer_response=response).SerializeToString()
            visit.answered(COPIES * len(answer))
            return answer, visit
        except Exception as error:
            visit.leave()
            refusal = rejection(error)
            code = refusal.grpc_code
            if not refusal.expected:
                log.error("gRPC ModelStreamInfer failed", exc_info=error)
            names = {} if message is None else {"model_name": message.request.model_name, "id": message.request.id}
            failed = pb.ModelStreamInferResponse(
                error_message=refusal.reason, infer_response=pb.ModelInferResponse(**names)
            )
            return failed.SerializeToString(), visit
        except asyncio.CancelledError:
            code = "CANCELLED"
            visit.leave()
            raise
        finally:
            self.log("ModelStreamInfer", visit, code, time.monotonic() - started, context)

    async def _infer(self, message: InferMessage, remaining: float | None, visit: Visit) -> Any:
        request = message.request
        model = visit.model = self.service.models.find(request.model_name, request.model_version)
        visit.id = request.id or None
        if message.large:
            images = await asyncio.get_running_loop().run_in_executor(
                self.service.readers, message.images, model.input, model.max_images
            )
        else:
            images = message.images(model.input, model.max_images)
        visit.images = len(images)
        outputs = pick_outputs(model.outputs, [output.name for output in request.outputs])
        for output in request.outputs:
            if "classification" in output.parameters or "shared_memory_region" in output.parameters:
                raise Rejected(400, f"output {output.name}: classification and shared memory are not offered.")
        timeout = timeout_of({key: _value(value) for key, value in request.parameters.items()})
        limits = [limit for limit in (timeout, remaining) if limit is not None]
        if limits and min(limits) <= 0:
            raise DeadlineExceeded("the deadline had passed when the request came.")
        results = await model.infer(images, min(limits, default=None))
        response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
        for info in outputs:
            value = results[info.name]
            response.outputs.add(name=info.name, datatype=DATATYPES[value.dtype.name], shape=value.shape)
            response.raw_output_contents.append(value.tobytes())
        return response


async def _next(messages: AsyncIterator[bytes]) -> bytes:
    async for data in messages:
        return data
    raise Rejected(400, "the call has no message.")


def _value(parameter: Any) -> Any:
    return getattr(parameter, parameter.WhichOneof("parameter_choice") or "string_param")
