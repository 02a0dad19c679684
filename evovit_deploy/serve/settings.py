"""What a service listens on, accepts and waits for."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from ..engines.batching.clock import MAX_DELAY_MS
from ..errors import InputError
from ..storage.files import plain, printable
from ..storage.missing import no_such_file
from ..storage.names import check_name, label_of, name_of

__all__ = ["ModelSource", "Settings"]

MIB = 1 << 20
LONGEST = 30 * 24 * 3600  # seconds; beyond their own limit, platforms raise OverflowError instead of waiting


@dataclass(frozen=True)
class Settings:
    """How to serve; the defaults suit one machine behind nothing.

    Attributes:
        host: Address to listen on; the loopback address is reachable from this machine only.
        port: HTTP port; 0 takes a free one.
        grpc_port: gRPC port; 0 takes a free one, None serves no gRPC.
        provider: As for ``Engine.open``.
        threads: As for ``Engine.open``.
        max_batch, fixed_batch, max_delay_ms, max_queue, workers, run_timeout: As for each model's
            :class:`~evovit_deploy.serve.Batcher`.
        timeout: Seconds until a request is answered with 504; a client may ask for less.
        body_timeout: Seconds that a client has to send its request.
        header_timeout: Seconds that a client has to send the head of a request, or to end a TLS or HTTP/2 handshake.
        idle_timeout: Seconds that a connection stays without a request. Balancers close theirs after 60, and must be first.
        max_connections: Connections that may be open, of HTTP and of gRPC each; fewer where the system allows fewer files.
        max_header_kib: Size of the head of an HTTP request, URL and headers, KiB.
        max_request_mib: Size of a request, also once decompressed, MiB.
        max_body_mib: Memory that the bodies of all requests may take together, MiB; at least one of ``max_request_mib`` fits.
        max_pixels: Width times height of an image for ``/v1/classify``, before it is decoded.
        max_streams: Streams of gRPC that may be open at once, each of which may be receiving a request of any size.
        max_concurrent: Requests at work at once; more are refused with 503.
        drain: Seconds that accepted requests have to end after SIGTERM.
        token: Bearer token that every request but the health checks must carry.
        certificate, private_key: PEM files for TLS, both or neither.
        control: Clients may load, reload and unload the models given at the start.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    provider: str = "auto"
    threads: int | None = None
    max_batch: int | None = None
    fixed_batch: bool = False
    max_delay_ms: float = 0.0
    max_queue: int = 256
    workers: int = 1
    run_timeout: float = 60.0
    timeout: float = 30.0
    body_timeout: float = 30.0
    header_timeout: float = 10.0
    idle_timeout: float = 75.0
    max_connections: int = 1000
    max_header_kib: int = 32
    max_request_mib: int = 64
    max_body_mib: int = 256
    max_pixels: int = 50_000_000
    max_concurrent: int = 512
    max_streams: int = 16
    drain: float = 30.0
    token: str | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    control: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_queue",
            "workers",
            "run_timeout",
            "timeout",
            "body_timeout",
            "header_timeout",
            "idle_timeout",
            "max_connections",
            "max_header_kib",
            "max_request_mib",
            "max_body_mib",
            "max_pixels",
            "max_concurrent",
            "max_streams",
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; give more than 0.")
        if not self.drain >= 0:
            raise InputError(f"drain is {self.drain}; give 0 or more seconds.")
        if not 0 <= self.max_delay_ms <= MAX_DELAY_MS:
            raise InputError(f"max_delay_ms is {self.max_delay_ms}; give 0 to {MAX_DELAY_MS:,} milliseconds.")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not isinstance(value, int):
                raise InputError(f"{field.name} is {value}; give a whole number.")
            if field.type == "float" and not value <= LONGEST:
                raise InputError(f"{field.name} is {value:g}; give {LONGEST:,} seconds (30 days) at most.")
        for name in ("port", "grpc_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 65535:
                raise InputError(f"{name} is {value}; valid: 0 to 65535.")
        if self.grpc_port == self.port != 0:
            raise InputError(f"HTTP and gRPC cannot share port {self.port}.")
        if (self.certificate is None) != (self.private_key is None):
            raise InputError("TLS needs a certificate and its private key.")
        for path in (self.certificate, self.private_key):
            if path is not None and not path.is_file():
                raise no_such_file(path, InputError, "TLS needs PEM files.")
        if self.token is not None and (
            not self.token.isascii() or not self.token.strip() or self.token.split() != [self.token]
        ):
            raise InputError("the bearer token must be ASCII text without spaces.")

    @property
    def max_bytes(self) -> int:
        """Size limit of a request, bytes."""
        return self.max_request_mib * MIB

    @property
    def body_bytes(self) -> int:
        """Memory for the bodies of all requests, bytes."""
        return max(self.max_body_mib, self.max_request_mib) * MIB


@dataclass(frozen=True)
class ModelSource:
    """A model to serve: under which name and version, and from which file."""

    name: str
    version: str
    path: Path

    @classmethod
    def parse_all(cls, texts: list[str]) -> list[ModelSource]:
        """Read ``PATH``, ``NAME=PATH`` and ``NAME:VERSION=PATH``, as :func:`.label_of` tells them apart.

        The name is by default made of the file's, by :func:`.name_of`; versions of a name count from 1 in the order given.

        Raises:
            InputError: A name or version that is not one, one given twice, or one name made of two.
        """
        sources: dict[tuple[str, str], ModelSource] = {}
        made: dict[str, Path] = {}  # name -> the first file that it was made of
        for text in texts:
            found = label_of(text)
            path = Path(text if found is None else found[1])
            name, _, version = (name_of(path), "", "") if found is None else found[0].partition(":")
            check_name(name, f"{plain(text)}: ")
            if found is None:
                other = made.setdefault(name, path)
                if other.stem != path.stem:
                    both = f"{printable(other)} and {printable(path)}"
                    raise InputError(f"{both} would both be called {name}. Give a name: NAME={printable(path)}")
            if not version:
                version = str(1 + max((int(v) for n, v in sources if n == name), default=0))
            if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
                raise InputError(f"{plain(text)}: version {version!r} is not a whole number from 1.")
            if (name, version) in sources:
                raise InputError(f"{plain(text)}: version {version} of {name} is given twice.")
            sources[name, version] = cls(name, version, path)
        if not sources:
            raise InputError("no model to serve.")
        return list(sources.values())
