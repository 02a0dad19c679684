"""What every unary call of gRPC goes through: the token, its message, its place and memory, the log, errors as status codes."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import message_factory
from tritonclient.grpc import service_pb2 as pb

from .capacity import Visit
from .rejections import rejection

__all__ = ["COPIES", "SERVICE", "endpoint"]

log = logging.getLogger("evovit.serve")
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
OPEN = ("ServerLive", "ServerReady")  # as in HTTP: no token, no limit
COPIES = 2  # of an answer that its client has not read: ours, and grpc's
RETRY = (("grpc-retry-pushback-ms", "1000"),)  # what Retry-After is in HTTP; clients with a retry policy heed it


def endpoint(method: Callable[[Any, Any, Any, Visit], Awaitable[Any]]) -> Any:
    """Authorise, receive the message, count, log, and turn errors into gRPC status codes.

    To grpc this is a method that takes a stream, of which it reads one message: so nothing is read of calls that are refused,
    and a message has a limit of time.
    """
    kind = _class_of(method.__name__)

    @functools.wraps(method)
    async def call(self: Any, messages: Any, context: Any) -> Any:
        started, code, visit = time.monotonic(), "OK", Visit(self.service.capacity)
        try:
            if method.__name__ in OPEN:
                return (await method(self, None, context, visit)).SerializeToString()
            self.authorise(context)
            visit.check()
            request = await self.receive(messages, visit, kind)
            visit.enter()
            answer = (await method(self, request, context, visit)).SerializeToString()
            visit.answered(COPIES * len(answer))
            visit.goes_out(context.peer())
            context.add_done_callback(lambda _: visit.leave())
            return answer
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            refusal = rejection(error)
            code = refusal.grpc_code
            if not refusal.expected:
                log.error("gRPC %s failed", method.__name__, exc_info=error)
        finally:
            if visit.peer is None:  # else once the client has read the answer
                visit.leave()
            self.log(method.__name__, visit, code, time.monotonic() - started, context)
        # Here, where the error is gone and with the request let go: grpc keeps what abort raises in a circle, so that its context
        # would stay, images and all, until the garbage collector comes by.
        request = answer = None
        trailing = RETRY if refusal.status == 503 else ()
        return await context.abort(getattr(grpc.StatusCode, code), refusal.reason, trailing)

    return call


def _class_of(method: str) -> Any:
    """The class of the messages that a method takes."""
    return message_factory.GetMessageClass(SERVICE.methods_by_name[method].input_type)
