"""The errors of this program.

    PusaError
    ├── UserError          what the user gave cannot be used; the message says what to do (exit code 2)
    │   ├── RecipeError    a recipe, timeline or number
    │   ├── MediaError     an image or a clip
    │   ├── ModelError     a model, its files or its conversion
    │   └── StoreError     the data folder: full, not writable, in use, of a newer version
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


class StoreError(UserError):
    """The data folder or the queue in it cannot be used."""


class RunCancelled(PusaError):
    """The run was stopped between two steps because somebody asked for it."""


# What torch, CUDA's libraries and the allocators of other devices say where Python would raise a MemoryError.
_MEMORY_WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "status_alloc_failed",  # CUDNN_..., CUBLAS_..., CUSPARSE_...
    "memory allocation failed",
)


def is_memory(error: BaseException) -> bool:
    """Whether it was memory that ran out, of the machine or of its GPU."""
    if isinstance(error, UserError | RunCancelled):
        return False
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(words in text for words in _MEMORY_WORDS)


def in_words(error: Exception) -> str:
    """Why a run failed, in one line for the user; of what nobody foresaw only its kind, since it may tell anything."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if is_memory(error):
        return "There is not enough memory for this video: make it shorter or smaller."
    return f"The run failed unexpectedly ({type(error).__name__}). Try again; the log says more."
