"""Calls of gRPC frame by frame, as no library makes them: HTTP/2 (RFC 9113) as a client writes it that means harm."""

from __future__ import annotations

import socket
import struct
import time

__all__ = ["compressed_call", "send_part", "unread_calls"]

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8  # kinds of frames
END_STREAM, END_HEADERS, ACK = 1, 4, 1  # flags
INITIAL_WINDOW = 4  # a setting
WINDOW, LARGEST = 65_535, 16_384  # bytes that a server takes without being asked, of a call and of a frame


def unread_calls(method: str, message: bytes, count: int) -> bytes:
    """Return what a gRPC client sends that makes calls and gives their answers no room, as HTTP/2 allows it.

    Args:
        method: Of the inference service.
        message: Of each call; all together below 64 KiB, which HTTP/2 allows from the start.
        count: Calls.
    """
    no_room = struct.pack(">HI", INITIAL_WINDOW, 0)
    calls = (
        _headers(method, stream) + _frame(DATA, END_STREAM, stream, _message(message)) for stream in _streams(count)
    )
    return _opening(no_room) + b"".join(calls)


def compressed_call(method: str, packed: bytes) -> bytes:
    """Return what a gRPC client sends for one call, its message compressed beforehand.

    Args:
        method: Of the inference service.
        packed: The message as gzip, below 16 KiB.
    """
    data = _frame(DATA, END_STREAM, 1, _message(packed, compressed=True))
    return _opening() + _headers(method, 1, {"grpc-encoding": "gzip"}) + data


def send_part(connection: socket.socket, method: str, part: bytes, size: int, *, seconds: float) -> int:
    """Begin a call and send the first bytes of its message as fast as the server takes them; the rest never comes.

    Args:
        connection: With a timeout, and nothing sent on it.
        method: Of the inference service.
        part: What is sent.
        size: Bytes that the message is said to have.
        seconds: After which to stop.

    Returns:
        Bytes that the server took.

    Raises:
        OSError: The connection ended.
    """
    until = time.monotonic() + seconds
    data = struct.pack(">?I", False, size) + part
    rooms, initial, received, sent = {0: WINDOW, 1: WINDOW}, WINDOW, b"", 0
    connection.sendall(_opening() + _headers(method, 1))
    while sent < len(data) and time.monotonic() < until:
        room = min(*rooms.values(), LARGEST, len(data) - sent)
        if room > 0:
            connection.sendall(_frame(DATA, 0, 1, data[sent : sent + room]))
            sent += room
            rooms = {stream: left - room for stream, left in rooms.items()}
            continue
        try:
            more = connection.recv(1 << 16)
        except TimeoutError:
            continue
        if not more:
            raise ConnectionResetError("the server ended the connection.")
        received += more
        while len(received) >= 9 and len(received) >= (end := 9 + int.from_bytes(received[:3], "big")):
            kind, flags, stream = received[3], received[4], int.from_bytes(received[5:9], "big")
            content, received = received[9:end], received[end:]
            if kind == SETTINGS and not flags & ACK:
                for name, value in struct.iter_unpack(">HI", content):
                    if name == INITIAL_WINDOW:
                        rooms[1], initial = rooms[1] + value - initial, value
                connection.sendall(_frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                connection.sendall(_frame(PING, ACK, 0, content))
            elif kind == WINDOW_UPDATE and stream in rooms:
                rooms[stream] += int.from_bytes(content, "big")
    return sent


def _streams(count: int) -> range:
    return range(1, 2 * count, 2)  # a client's are odd


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    return struct.pack(">I", len(data))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + data


def _opening(settings: bytes = b"") -> bytes:
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, settings)


def _headers(method: str, stream: int, more: dict[str, str] | None = None) -> bytes:
    headers = {":method": "POST", ":scheme": "http", ":path": f"/inference.GRPCInferenceService/{method}"}
    headers |= {":authority": "x", "te": "trailers", "content-type": "application/grpc", **(more or {})}
    literal = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in headers.items()
    )
    return _frame(HEADERS, END_HEADERS, stream, literal)


def _message(data: bytes, *, compressed: bool = False) -> bytes:
    return struct.pack(">?I", compressed, len(data)) + data
