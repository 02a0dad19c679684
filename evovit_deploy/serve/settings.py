"""What a service listens on, accepts and waits for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..storage.files import plain, printable
from ..storage.missing import no_such_file
from ..storage.names import check_name, label_of, name_of
from .limits import Limits, limit, seconds

__all__ = ["ModelSource", "ServiceSettings"]

MIB = 1 << 20


@dataclass(frozen=True)
class ServiceSettings(Limits):
    """How to serve; the defaults suit one machine behind nothing.

    Attributes:
        host: Address to listen on; the loopback address is reachable from this machine only.
        port: HTTP port; 0 takes a free one.
        grpc_port: gRPC port; 0 takes a free one, None serves no gRPC.
        provider: As for ``Engine.open``.
        threads: As for ``Engine.open``.
        fixed_batch: As for each model's :class:`~evovit_deploy.serve.Batcher`.
        header_timeout: Seconds that a client has to send the head of a request, or to end a TLS or HTTP/2 handshake.
        idle_timeout: Seconds that a connection stays without a request. Balancers close theirs after 60, and must be first.
        max_connections: Connections that may be open, of HTTP and of gRPC each; fewer where the system allows fewer files.
        max_header_kib: Size of the head of an HTTP request, URL and headers, KiB.
        max_streams: Streams of gRPC that may be open at once, each of which may be receiving a request of any size.
        token: Bearer token that every request but the health checks must carry.
        certificate, private_key: PEM files for TLS, both or neither.
        control: Clients may load, reload and unload the models given at the start.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    provider: str = "auto"
    threads: int | None = limit(None, "CPU threads per operator. Default: the backend's.", least=1)
    fixed_batch: bool = False
    header_timeout: float = seconds(10.0, "How long a head or a handshake may take.")
    idle_timeout: float = seconds(75.0, "How long a connection stays without a request.")
    max_connections: int = limit(1000, "Open connections, of HTTP and of gRPC each.", least=1)
    max_header_kib: int = limit(32, "Largest head of an HTTP request.", "KIB", least=1)
    max_streams: int = limit(16, "Open gRPC streams.", least=1)
    token: str | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    control: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
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
