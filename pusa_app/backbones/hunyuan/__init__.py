"""HunyuanVideo: the vectorized transformer, and whole models of the family. Not yet trained for a time per slot."""

from pusa_app.backbones.hunyuan.backbone import HunyuanBackbone
from pusa_app.backbones.hunyuan.decoder import decode_windows, enable_streaming
from pusa_app.backbones.hunyuan.transformer import VectorizedHunyuanVideoTransformer3DModel

__all__ = [
    "HunyuanBackbone",
    "VectorizedHunyuanVideoTransformer3DModel",
    "decode_windows",
    "enable_streaming",
]
