"""`evovit gpu-check`: does every backend that is here compute the right thing on this GPU, and how fast.

Each model and backend is looked at in a process of its own (:mod:`.worker`), so that one that crashes or hangs is a line in the
result and not its end. Without a GPU, ``device="cpu"`` does the same on the CPU.
"""

from .jobs import CheckOptions
from .runner import CheckResult, check

__all__ = ["CheckOptions", "CheckResult", "check"]
