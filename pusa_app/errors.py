"""The errors of this program.

    PusaError
    ├── UserError          what the user gave cannot be used; the message says what to do (exit code 2)
    │   ├── RecipeError    a recipe, timeline or number
    │   ├── MediaError     an image or a clip
    │   └── ModelError     a model, its files or its conversion
    └── RunCancelled       a run was stopped on request

A message is one line: what is wrong, where, and what to do next. It never holds a traceback.
"""

from __future__ import annotations


class PusaError(Exception):
    """Base of all errors that this program raises on purpose."""


class UserError(PusaError):
    """What the user gave cannot be used."""


class RecipeError(UserError):
    """A recipe, a timeline or one of its numbers is not valid."""


class MediaError(UserError):
    """An image or a clip cannot be used."""


class ModelError(UserError):
    """A model is unknown, incomplete, or its files cannot be read."""


class RunCancelled(PusaError):
    """The run was stopped between two steps because somebody asked for it."""


def in_words(error: Exception) -> str:
    """Why a run failed, in one line for the user; of what nobody foresaw only its kind, since it may tell anything."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "There is not enough memory for this video: make it shorter or smaller."
    return f"The run failed unexpectedly ({type(error).__name__}). Try again; the log says more."
