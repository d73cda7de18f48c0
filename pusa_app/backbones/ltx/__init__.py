"""LTX-Video: the transformer with modulation per slot, and whole models of the family."""

from pusa_app.backbones.ltx.backbone import LTXBackbone
from pusa_app.backbones.ltx.transformer import VectorizedLTXVideoTransformer3DModel

__all__ = ["LTXBackbone", "VectorizedLTXVideoTransformer3DModel"]
