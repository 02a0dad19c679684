"""Ending the connections of gRPC clients: grpc's server cannot cancel a call whose answer nobody reads."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Collection

__all__ = ["hang_up"]

PEER = re.compile(r"ipv[46]:\[?(.+?)\]?:([0-9]+)")  # as grpc says it
FILES = "/dev/fd"


def hang_up(peers: Collection[str]) -> int:
    """Shut connections of this process down, so that grpc ends every call on them.

    Args:
        peers: As ``context.peer()`` gives them, such as ``ipv4:127.0.0.1:40000``.

    Returns:
        How many were found. None is on Windows, where open files are not listed.
    """
    parsed = (PEER.fullmatch(peer.replace("%5B", "[").replace("%5D", "]")) for peer in peers)
    wanted = {(each[1], int(each[2])) for each in parsed if each is not None}
    if not wanted or not os.path.isdir(FILES):
        return 0
    found = 0
    for name in os.listdir(FILES):
        with contextlib.suppress(OSError):  # closed meanwhile, or never connected
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                host, port, *_ = connection.getpeername() if connection.family != socket.AF_UNIX else ("", 0)
                if (host.removeprefix("::ffff:"), port) in wanted:
                    connection.shutdown(socket.SHUT_RDWR)
                    found += 1
    return found
