"""Wan: the vectorized transformer, and whole models of the family."""

from pusa_app.backbones.wan.transformer import VectorizedWanTransformer3DModel

__all__ = ["VectorizedWanTransformer3DModel"]
