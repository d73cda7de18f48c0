"""Mochi: the vectorized transformer, and whole models of the family (Mochi 1, Pusa V0.5, mini)."""

from pusa_app.backbones.mochi.backbone import MochiBackbone
from pusa_app.backbones.mochi.decoder import decode_chunks, enable_streaming
from pusa_app.backbones.mochi.transformer import VectorizedMochiTransformer3DModel
from pusa_app.backbones.preview import LatentPreview, fit_preview

__all__ = [
    "LatentPreview",
    "MochiBackbone",
    "VectorizedMochiTransformer3DModel",
    "decode_chunks",
    "enable_streaming",
    "fit_preview",
]
