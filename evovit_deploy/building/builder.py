"""ONNX file to serialised plan: network, configuration, timing cache; the same calls for both flavours."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path
from typing import Any

from ..engines.trt.api import Api, Gpu, PlanLogger, plan_logger
from ..engines.trt.options import BatchProfile, BuildOptions
from ..errors import EngineError, InputError, ModelFileError
from ..storage import cache as cache_files
from .monitor import Progress, progress_monitor, run_cancellable
from .onnx_facts import OnnxFacts

__all__ = ["build_plan"]


def build_plan(
    api: Api, gpu: Gpu | None, facts: OnnxFacts, profile: BatchProfile, options: BuildOptions, progress: Progress | None
) -> tuple[bytes, PlanLogger, float]:
    """Run the builder of one flavour.

    Returns:
        The serialised plan, what was logged, and the seconds it took.

    Raises:
        ModelFileError: TensorRT's parser refuses the ONNX file; the message names the node.
        EngineError: The build failed.
    """
    trt, logger, cancel = api.trt, plan_logger(api), threading.Event()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the flavour that does not need a call any more
        builder = trt.Builder(logger)
        network = builder.create_network(_network_flags(trt))
        _parse(api, network, logger, facts)
        config = _configure(api, builder, network, facts, profile, options)
        cache = None
        if not api.rtx and options.timing_cache and gpu is not None:
            cache = cache_files.cache_file("timing", api.flavour, api.version, f"{gpu.name} {gpu.capability}")
            _load_timing_cache(config, cache)
        monitor = progress_monitor(trt, progress, cancel)
        config.progress_monitor = monitor
        start = time.perf_counter()
        serialised = run_cancellable(lambda: builder.build_serialized_network(network, config), cancel)
        seconds = time.perf_counter() - start
        if monitor.failure is not None:
            raise monitor.failure
        if serialised is None:
            raise EngineError(
                f"{api.title} could not build {facts.path}: {logger.kept.problem()}. Nothing was written."
            )
        if cache is not None:
            _save_timing_cache(config, cache)
    return bytes(serialised), logger.kept, seconds


def _network_flags(trt: Any) -> int:
    """Strongly typed; explicit batch is the only kind of network since TensorRT 10."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parse(api: Api, network: Any, logger: Any, facts: OnnxFacts) -> None:
    parser = api.trt.OnnxParser(network, logger)
    # From the file, not from memory: weights that lie in other files are found beside it.
    if parser.parse_from_file(str(facts.path)):
        return
    problem = logger.kept.problem()
    if parser.num_errors:
        error = parser.get_error(0)
        node = f"node {error.node_name() or error.node()} ({error.node_operator()}): " if error.node() >= 0 else ""
        problem = f"{node}{error.desc().strip().rstrip('.')}"
    raise ModelFileError(f"{api.title} cannot read {facts.path}: {problem}. Export it again with another --opset.")


def _configure(
    api: Api, builder: Any, network: Any, facts: OnnxFacts, profile: BatchProfile, options: BuildOptions
) -> Any:
    trt = api.trt
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the plan report is read from it
    image = network.get_input(0)
    if profile.static is not None:
        image.shape = (profile.static, *facts.image_shape)  # truly static: shapes are folded, the plan is leaner
    else:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(image.name, *((size, *facts.image_shape) for size in (profile.min, profile.opt, profile.max)))
        if config.add_optimization_profile(shapes) < 0:
            raise InputError(f"{api.title} refuses the batch profile {profile.min}/{profile.opt}/{profile.max}.")
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    for wanted, flag in (
        (options.version_compatible, "VERSION_COMPATIBLE"), (options.refit, "REFIT"), (options.strip_plan, "STRIP_PLAN")
    ):  # fmt: skip
        if wanted:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.replace("+", "_plus").replace("-", "_").upper()
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if options.tiling != "none":
        config.tiling_optimization_level = getattr(trt.TilingOptimizationLevel, options.tiling.upper())
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for i, capability in enumerate(options.compute_capabilities):
            config.set_compute_capability(api.compute_capabilities()[capability], i)
    return config


def _load_timing_cache(config: Any, path: Path) -> None:
    cache = config.create_timing_cache(cache_files.read(path))
    # A file of another version or a damaged one is refused; an empty cache takes its place.
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_timing_cache(config: Any, path: Path) -> None:
    ours = config.get_timing_cache()
    if ours is None:
        return

    def combine(there: bytes, _: bytes) -> bytes:
        other = config.create_timing_cache(there)
        if other is not None:
            ours.combine(other, True)
        return bytes(ours.serialize())

    cache_files.merge(path, bytes(ours.serialize()), combine)
