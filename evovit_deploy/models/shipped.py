"""The families that ship, one line each. Importing this module registers them."""

from .levit import family as levit
from .vit import evit_family as evit
from .vit import family as vit

__all__ = ["evit", "levit", "vit"]
