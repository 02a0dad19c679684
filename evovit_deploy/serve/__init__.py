"""In production: a micro-batcher around any engine, and an HTTP and gRPC service on top of it."""

from ..engines.batching.batcher import Batcher

__all__ = ["Batcher"]
