"""Keep ratios and schedules of one checkpoint: how fast and how right each is, and the one to deploy."""

from .candidates import Candidate, candidates
from .front import Outcome, choose, comparable, front
from .runner import SweepSettings, sweep

__all__ = ["Candidate", "Outcome", "SweepSettings", "candidates", "choose", "comparable", "front", "sweep"]
