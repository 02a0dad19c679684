"""What a model looks at: the patches that each selection kept, and the class attention that they were chosen by."""

from .maps import Explainer, Look, Selected
from .runner import Explanation, explain

__all__ = ["Explainer", "Explanation", "Look", "Selected", "explain"]
