"""Mochi: the vectorized transformer (Pusa V0.5, mini)."""

from pusa_app.backbones.mochi.transformer import VectorizedMochiTransformer3DModel

__all__ = ["VectorizedMochiTransformer3DModel"]
