"""Accuracy beside speed: a model on labelled images, alone or against another."""

from .data import Dataset, read_dataset
from .report import Evaluation
from .runner import Progress, Subject, evaluate

__all__ = ["Dataset", "Evaluation", "Progress", "Subject", "evaluate", "read_dataset"]
