"""The inference module of a checkpoint, for tests that look at what it computes."""

from __future__ import annotations

from typing import Any

from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.models.build import build_model
from evovit_deploy.models.options import ModelOptions

__all__ = ["module_of"]


def module_of(checkpoint: Checkpoint, options: ModelOptions | None = None) -> Any:
    return build_model(checkpoint.recipe, checkpoint.state, options)
