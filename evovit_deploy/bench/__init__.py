"""Measuring: latency and throughput of engines side by side, with honest intervals.

from evovit_deploy import Engine, benchmark

with Engine.open("evo.onnx") as evo, Engine.open("deit.onnx") as deit:
    report = benchmark({"evo": evo, "deit": deit}, baseline="deit", min_seconds=10, min_calls=100)
print(report.to_dict())
"""

from .measure import benchmark
from .report import BenchReport, Point, Settings, Speedup, Subject

__all__ = ["BenchReport", "Point", "Settings", "Speedup", "Subject", "benchmark"]
