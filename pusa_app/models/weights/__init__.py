"""Getting the weights of models: what is here, downloads that stop and go on, a user's own files, deleting.

Nothing here imports torch, except the process that downloads, when it converts what came.
"""

from pusa_app.models.weights.asked import ask, listed, listed_of
from pusa_app.models.weights.fetch import Step, fetch
from pusa_app.models.weights.hub import Stopped
from pusa_app.models.weights.shelf import Removal, State, add, removal, remove, state_of, states
from pusa_app.models.weights.words import size_words

__all__ = [
    "Removal",
    "State",
    "Step",
    "Stopped",
    "add",
    "ask",
    "fetch",
    "listed",
    "listed_of",
    "removal",
    "remove",
    "size_words",
    "state_of",
    "states",
]
