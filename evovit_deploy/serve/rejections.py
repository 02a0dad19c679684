"""How an error is told to a client: an HTTP status, a gRPC code, and a reason without anything of this machine in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..errors import DeadlineExceeded, EngineError, EvoVitError, InputError, Overloaded

__all__ = ["Rejected", "Rejection", "rejection"]

GRPC_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Rejected(EvoVitError):
    """A request that is refused with a status of HTTP; the message is sent to the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Rejection:
    """What a client is told.

    Attributes:
        status: HTTP status.
        reason: One sentence.
        expected: The service works as it should; False is worth a traceback in the log.
    """

    status: int
    reason: str
    expected: bool = True

    @property
    def grpc_code(self) -> str:
        """Name of the gRPC status code."""
        return GRPC_CODES[self.status]


def rejection(error: BaseException) -> Rejection:
    """Return the answer to an error of any kind."""
    if isinstance(error, Rejected):
        return Rejection(error.status, str(error))
    if isinstance(error, InputError):
        return Rejection(400, str(error))
    if isinstance(error, Overloaded):
        return Rejection(503, str(error))
    if isinstance(error, (DeadlineExceeded, asyncio.TimeoutError)):
        return Rejection(504, str(error) or "the request was not answered in time.")
    if isinstance(error, EngineError):
        return Rejection(500, "the model failed on this request; the log of the service says why.", False)
    return Rejection(500, "internal error; the log of the service says more.", False)
