"""Beyond one machine: the service as a Ray Serve application, and offline scoring as a Ray Data stage.

:func:`app` builds the application, from Python (``ray.serve.run(app({...}))``) and from a Ray Serve config file::

    applications:
      - name: evovit
        route_prefix: /                          # Ray's own field, not an argument
        import_path: evovit_deploy.cluster:app
        args:
          models: ["digits=/models/digits.onnx"] # required: FILE, NAME=FILE or NAME:VERSION=FILE, as for `evovit serve`
          labels: null                           # file of class names
          max_batch: null                        # images per batch; null is the engine's most, or 32
          max_delay_ms: 0.0                      # how long a request may wait for a fuller batch
          max_queue: 256                         # images that may wait in a replica, and requests at a proxy; beyond, 503
          num_replicas: 1                        # or min_replicas and max_replicas, which turn autoscaling on
          min_replicas: null
          max_replicas: null
          target_ongoing_requests: null          # what autoscaling aims at for a replica; null is half of max_batch
          num_cpus: 1.0                          # of each replica
          num_gpus: 0.0

Files are opened by the replicas: they must be at the same absolute path on every node. Further arguments, with the meaning
and the defaults of ``evovit serve``: ``provider``, ``threads`` (default: num_cpus), ``fixed_batch``, ``workers``,
``run_timeout``, ``timeout``, ``max_request_mib``, ``max_body_mib``, ``max_pixels``, ``max_concurrent``,
``drain``, ``token_file``. Of Ray's own: ``max_ongoing_requests`` (requests in a replica at once; default: twice
max_batch), ``max_queued_requests`` (at each proxy; default: max_queue), ``health_check_period_s`` (5)
and ``health_check_timeout_s`` (30). Unknown keys are errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .offline import Scorer, score

__all__ = ["Scorer", "app", "score"]


def app(args: dict[str, Any]) -> Any:
    """Return the Ray Serve application of these arguments; see the module's text for them.

    Raises:
        EngineError: Ray is not installed.
        InputError: An unknown argument, or an impossible value.
    """
    from .application import application
    from .options import RayOptions

    return application(RayOptions.from_dict(args))


def __getattr__(name: str) -> Any:
    if name in ("Scorer", "score"):
        from . import offline

        return getattr(offline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
