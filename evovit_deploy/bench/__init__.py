"""Measuring: latency and throughput of engines side by side, with honest intervals.

from evovit_deploy import Engine, benchmark
from evovit_deploy.bench import Settings

with Engine.open("evo.onnx") as evo, Engine.open("deit.onnx") as deit:
    report = benchmark({"evo": evo, "deit": deit}, Settings(batches=(1, 8)), baseline="deit")
print(report.to_dict())
"""

from .measure import benchmark
from .reading import read_records
from .report import BenchReport, Point, Speedup
from .settings import Settings
from .subject import Facts, Opened, Subject

__all__ = ["BenchReport", "Facts", "Opened", "Point", "Settings", "Speedup", "Subject", "benchmark", "read_records"]
