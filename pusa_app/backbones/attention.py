"""Which implementation of attention a transformer uses, through diffusers' dispatcher.

native: torch chooses (flash or memory-efficient on a GPU). cudnn: torch's own, made by NVIDIA. flash: the package
flash-attn, or flash_attn_interface for the GPUs of its third version. sage: 8-bit, the package sageattention.
"""

from __future__ import annotations

from typing import Any

from pusa_app.errors import ModelError
from pusa_app.models.plan_types import Attention

BACKENDS: dict[Attention, tuple[str, ...]] = {
    "native": ("native",),
    "cudnn": ("_native_cudnn",),
    "flash": ("flash", "_flash_3"),
    "sage": ("sage",),
}
# These know no mask, so texts of different lengths cannot share a forward.
WITHOUT_MASK: tuple[Attention, ...] = ("flash", "sage")


def use_attention(model: Any, kind: Attention) -> None:
    """Set it for a transformer of diffusers, or one of ours. Raises ModelError where it cannot be had.

    native is set too: diffusers keeps what the last model chose for those that choose nothing.
    """
    for name in BACKENDS[kind]:
        try:
            model.set_attention_backend(name)
            return
        except (RuntimeError, ValueError, ImportError, OSError) as error:
            reason = str(error).strip().splitlines()
    why = reason[0].rstrip(".") if reason else "the package is missing"
    raise ModelError(f"The attention {kind} cannot be used here ({why[:200]}): install it, or choose attention=native.")
