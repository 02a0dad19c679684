"""Clients that cost little: they share the machine with the service that they measure.

The HTTP client is a keep-alive connection parsed by ``httptools``; the gRPC client a separate channel with the stubs of
``tritonclient.grpc``. Requests are made before, so sending one is a write.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, cast

from .wire import Reply, read_grpc, read_http

if TYPE_CHECKING:
    import grpc

__all__ = ["Closed", "GrpcClient", "HttpClient", "HttpPool"]

PATIENCE = 60.0  # seconds for an answer; a service that is silent for so long has lost the request
PUSHBACK = "grpc-retry-pushback-ms"  # what Retry-After is in gRPC


class Closed(ConnectionError):
    """The service ended the connection before it answered.

    Attributes:
        begun: A part of the answer had come.
    """

    def __init__(self, begun: bool) -> None:
        super().__init__("the connection was closed before the answer was whole")
        self.begun = begun


class HttpClient(asyncio.Protocol):
    """One connection; one request at a time. Made with :meth:`connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[int, dict[str, str], bytes]] | None = None
        self._reset()

    @classmethod
    async def connect(cls, address: str) -> HttpClient:
        """Connect to ``host:port``."""
        host, _, port = address.rpartition(":")
        _, client = await asyncio.get_running_loop().create_connection(cls, host.strip("[]"), int(port))
        return client

    async def infer(self, request: bytes) -> Reply:
        """Send a request of :func:`~.wire.http_request`.

        Raises:
            Closed: The service ended the connection.
            asyncio.TimeoutError: No answer for a minute.
        """
        return read_http(*await self.send(request))

    async def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send any request and return status, headers (lower case) and body."""
        if self._transport is None or self._transport.is_closing():
            raise Closed(False)
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._waiting, PATIENCE)
        finally:
            self._waiting = None

    @property
    def open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def leave(self) -> None:
        """Close at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Closed(self._begun))

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._begun = True
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._body += body

    def on_message_complete(self) -> None:
        """See httptools."""
        status, headers, body = self._parser.get_status_code(), self._headers, bytes(self._body)
        self._reset()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((status, headers, body))

    def _reset(self) -> None:
        import httptools

        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._begun = False


class HttpPool:
    """As many connections as there are requests at once, kept for the next ones."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._free: list[HttpClient] = []

    async def infer(self, request: bytes) -> Reply:
        """As :meth:`HttpClient.infer`, over a connection that is free or new."""
        return read_http(*await self.send(request))

    async def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """As :meth:`HttpClient.send`."""
        client = None
        while self._free and client is None:
            found = self._free.pop()
            client = found if found.open else None
        if client is None:
            client = await HttpClient.connect(self._address)
        answer = await client.send(request)
        self._free.append(client)
        return answer

    def close(self) -> None:
        """End the connections."""
        for client in self._free:
            client.leave()
        self._free.clear()


class GrpcClient:
    """One channel, with a separate connection."""

    def __init__(self, address: str) -> None:
        import grpc
        from tritonclient.grpc import service_pb2_grpc as stubs

        options = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        self._channel: grpc.aio.Channel = grpc.aio.insecure_channel(address, options=options)
        self._stub: Any = stubs.GRPCInferenceServiceStub(self._channel)

    async def infer(self, request: Any) -> Reply:
        """Send a message of :func:`~.wire.grpc_request`; a refusal is an answer too.

        Raises:
            Closed: The connection broke, or gRPC turned the request away.
        """
        import grpc

        try:
            return read_grpc(await self._stub.ModelInfer(request, timeout=PATIENCE))
        except grpc.aio.AioRpcError as error:
            told = dict(error.trailing_metadata() or ())
            # Not the service's own words but gRPC's: on a broken connection, or for what comes while a server is stopping.
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) and PUSHBACK not in told:
                raise Closed(False) from error
            return Reply(error.code().name, PUSHBACK in told, reason=error.details() or "")

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()
