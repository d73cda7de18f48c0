"""Wan: the vectorized transformer, and whole models of the family (Wan 2.1 and 2.2, Pusa V1, SkyReels-V2-DF)."""

from pusa_app.backbones.wan.backbone import SkyReelsBackbone, WanBackbone
from pusa_app.backbones.wan.decoder import decode_slots
from pusa_app.backbones.wan.transformer import VectorizedWanTransformer3DModel

__all__ = ["SkyReelsBackbone", "VectorizedWanTransformer3DModel", "WanBackbone", "decode_slots"]
