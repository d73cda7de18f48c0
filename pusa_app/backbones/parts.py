"""What every family needs to load its parts, and to take turns with them on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from pusa_app.errors import ModelError, is_memory

T = TypeVar("T")


class Turns:
    """Modules that take turns on a device: one is there, the others wait in the memory of the machine."""

    def __init__(self, modules: Sequence[torch.nn.Module], device: torch.device) -> None:
        self._modules, self._device = modules, device
        self._there: torch.nn.Module | None = None

    def has(self, module: torch.nn.Module) -> bool:
        """Whether a module is the one on the device."""
        return module is self._there

    def take(self, module: torch.nn.Module) -> None:
        """Bring a module to the device, once the others have left it."""
        if module is self._there:
            return
        self._there = None  # until the move has come to its end: memory may run out in the midst of it
        for other in self._modules:
            if other is not module:
                other.to("cpu")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # the next one needs large blocks, and the holes of the last one are none
        module.to(self._device)
        self._there = module

    def leave(self) -> None:
        """All of them leave the device."""
        if self._there is None:
            return
        self._there = None
        for module in self._modules:
            module.to("cpu")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Loading tells nothing on the terminal: progress is events, and what went wrong is one exception."""
    libraries = (diffusers_logging, transformers_logging)
    noisy = [library for library in libraries if library.is_progress_bar_enabled()]
    levels = [library.get_verbosity() for library in libraries]
    for library in noisy:
        library.disable_progress_bar()
    for library in libraries:
        library.set_verbosity(library.CRITICAL + 1)
    try:
        yield
    finally:
        for library in noisy:
            library.enable_progress_bar()
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)


def load_weights(cls: Any, path: Path, dtype: torch.dtype, **more: Any) -> Any:
    """from_pretrained, but a weight that the files lack is an error instead of a random number."""
    options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "output_loading_info": True, **more}
    model, info = load_part(path, lambda folder: cls.from_pretrained(folder, **options))
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise ModelError(
            f"The model part {path} does not fit its config: {missing[0]} is missing or has another shape."
        )
    return model


def load_part(path: Path, load: Callable[[Path], T]) -> T:
    """Call `load` with a path; what it raises for a damaged file becomes a ModelError of one line."""
    try:
        return load(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        if is_memory(error):
            raise
        # bad JSON, no weights, a truncated file, tensors that do not fit: each library has its own exception for these
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise ModelError(f"The model part {path} cannot be loaded ({reason}): get its files again.") from error
