"""A replica and a node of a Ray cluster killed under load: with clients that try again, no request is lost.

The cluster has two nodes, which are processes of this machine on the loopback address, and a replica on each.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..cluster.application import DEPLOYMENT, application, require
from ..cluster.cluster import LOCAL_ENVIRONMENT
from ..cluster.options import RayOptions
from ..engines.base import Engine
from ..errors import EngineError
from ..serve.listening import free_port
from ..serve.settings import ModelSource, ServiceSettings
from .clients import HttpPool
from .stand_in import NAME, StandIn, numbered, stand_in_engine
from .tally import FIELDS, own
from .wire import http_request, read_http

__all__ = [
    "HANGS",
    "TwoNodes",
    "deploy",
    "node_killed",
    "prepare_environment",
    "ray_cluster",
    "replica_killed",
    "retried",
]

APPLICATION = "pair"
CALLERS = 6
PATIENCE = 60.0  # seconds that a client tries, and that a replica may take to be replaced
PAUSE = 0.1  # seconds until a client tries again
HANGS = 9  # the number on which the engine hangs
ABOUT = StandIn(0.005, hang_at=(HANGS,))
# Read when Ray is imported: a token, the loopback address only, no reports, and time for a proxy to start on a busy machine.
ENVIRONMENT = {
    **LOCAL_ENVIRONMENT,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}


class TwoNodes:
    """An application of two replicas, one on each of two nodes.

    Attributes:
        cluster: Of ``ray.cluster_utils``.
        http: ``host:port`` of Ray's proxy, which is on the first node.
    """

    def __init__(self, cluster: Any, http: str) -> None:
        self.cluster, self.http = cluster, http

    def replicas(self) -> set[str]:
        """Return the names of the actors."""
        import ray

        names = (entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True))
        return {name for name in names if name.startswith(f"SERVE_REPLICA::{APPLICATION}#{DEPLOYMENT}#")}

    async def complete(self, wanted: Callable[[set[str]], bool]) -> bool:
        """Return whether there are two replicas, and those that are ``wanted``; waits for a minute."""
        until = time.monotonic() + PATIENCE
        while len(now := await asyncio.to_thread(self.replicas)) != 2 or not wanted(now):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(PAUSE)
        return True


def prepare_environment() -> None:
    """What Ray has to find in the environment when it is imported, which may be before :func:`ray_cluster`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def ray_cluster() -> Iterator[TwoNodes]:
    """Yield a cluster of one node with Ray Serve on it; :func:`deploy` adds the other.

    Raises:
        EngineError: Ray is not installed, or runs in this process already.
    """
    prepare_environment()
    require()
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        raise EngineError("Ray runs in this process already; a cluster of two nodes needs a separate process.")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # it talks at every step
    # Nothing reads what Ray's own processes for logs and for autoscaling would do.
    unneeded = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **unneeded})
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        port = free_port("127.0.0.1", 0)
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield TwoNodes(cluster, f"127.0.0.1:{port}")
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


def deploy(pair: TwoNodes) -> None:
    """Add the second node, and put the application on both: there is room for one replica on each."""
    from ray import serve

    pair.cluster.add_node(num_cpus=2)
    options = RayOptions(
        models=(f"{NAME}=none",),
        num_cpus=1.2,
        num_replicas=2,
        run_timeout=0.2,
        health_check_period_s=0.5,
        max_ongoing_requests=4,
    )
    serve.run(application(options, opener=_open), name=APPLICATION, route_prefix="/")


def _open(source: ModelSource, settings: ServiceSettings) -> Engine:
    return stand_in_engine(ABOUT)


async def replica_killed(pair: TwoNodes, requests: int = 300) -> dict[str, Any]:
    """One of the two replicas is killed after a third of the requests; Ray puts another in its place."""
    import ray

    name = min(pair.replicas())
    victim = ray.get_actor(name, namespace="serve")
    found = await retried(pair, requests, lambda: ray.kill(victim))
    return {**found, "replaced": await pair.complete(lambda now: name not in now)}


async def node_killed(pair: TwoNodes, requests: int = 300) -> dict[str, Any]:
    """The node that is not the first is killed after a third of the requests; a new one gets a replica."""
    before = pair.replicas()
    node = next(iter(pair.cluster.worker_nodes))
    found = await retried(pair, requests, lambda: pair.cluster.remove_node(node, allow_graceful=False))
    pair.cluster.add_node(num_cpus=2)
    return {**found, "replaced": await pair.complete(lambda now: now != before)}


async def retried(pair: TwoNodes, requests: int, strike: Callable[[], object] | None = None) -> dict[str, Any]:
    """Callers that send the next request when the last is answered, and each again until it is.

    Args:
        pair: The application.
        requests: How many at least.
        strike: Called once a third is answered. Load goes on while it works, and then for another third.

    Returns:
        Counts of requests, and ``tried_again``: of attempts that failed, by HTTP status, or ``connection``. Another status than
        500 and 503 ends a request as ``other``.
    """
    pool, order = HttpPool(pair.http), itertools.count(1_000)
    ends: list[str] = []
    again: Counter[str] = Counter()
    third, struck, enough = asyncio.Event(), asyncio.Event(), requests

    async def caller() -> None:
        while len(ends) < enough or not struck.is_set():
            ends.append(await _until_answered(pool, next(order), again))
            if len(ends) * 3 >= requests:
                third.set()

    async def fault() -> None:
        nonlocal enough
        await third.wait()
        if strike is not None:
            await asyncio.to_thread(strike)
        enough = max(requests, len(ends) + requests // 3)
        struck.set()

    await asyncio.gather(fault(), *itertools.starmap(caller, [()] * CALLERS))
    pool.close()
    counts = Counter(ends)
    return {
        "requests": len(ends),
        **{name: counts[name] for name in FIELDS},
        "tried_again": dict(sorted(again.items())),
    }


async def _until_answered(pool: HttpPool, number: int, again: Counter[str]) -> str:
    request = http_request(NAME, numbered(number, ABOUT.size), id=str(number))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            status, headers, body = await pool.send(request)
        except (OSError, asyncio.TimeoutError):
            again["connection"] += 1
        else:
            if status == 200:
                return own(read_http(status, headers, body), number)
            if status not in (500, 503):
                return "other"
            again[str(status)] += 1  # its body may be Ray's own and not the protocol's
        await asyncio.sleep(PAUSE)
    return "lost"
