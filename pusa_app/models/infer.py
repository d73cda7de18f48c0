"""A card for a diffusers folder that has none: geometry from the configs of its parts, the rest as published.

PIPELINES says who reads the folder of which pipeline, by `_class_name` in its model_index.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec
from pusa_app.models.entry import entries
from pusa_app.models.infer_wan import WAN_PIPELINES, infer_wan
from pusa_app.timeline import ScheduleSpec, TaskName

# The folder, its model_index.json, and the configs of its transformer and its VAE -> the fields of a ModelCard.
Infer = Callable[[Path, dict[str, Any], dict[str, Any], dict[str, Any]], dict[str, Any]]


def infer_mochi(
    folder: Path, index: dict[str, Any], transformer: dict[str, Any], vae: dict[str, Any]
) -> dict[str, Any]:
    temporal, spatial = (vae.get(f"{kind}_expansions") for kind in ("temporal", "spatial"))
    try:
        spec = BackboneSpec(
            family="mochi",
            temporal_stride=math.prod(temporal or (1, 2, 3)),
            spatial_stride=math.prod(spatial or (2, 2, 2)),
            patch=transformer.get("patch_size", 2),
            latent_channels=transformer.get("in_channels", 12),
            fps=30,
            width=848,
            height=480,
            num_frames=85,
            max_frames=163,
            steps=40,
            guidance=4.5,
            schedule=ScheduleSpec(kind="linear-quadratic"),
            max_text_tokens=transformer.get("max_sequence_length", 256),
        )
    except (ValidationError, TypeError) as error:
        raise _misfit(folder, "Mochi", error) from None
    return {
        "title": folder.name,
        "summary": "A Mochi model from a folder.",
        "licence": "see its folder",
        "spec": spec,
        "tasks": get_args(TaskName),
    }


def infer_ltx(folder: Path, index: dict[str, Any], transformer: dict[str, Any], vae: dict[str, Any]) -> dict[str, Any]:
    """As the published LTX-Video 0.9.5.

    Its schedule is LTXConditionPipeline's for older models too: LTXPipeline's goes with the size of the clip.
    """
    scaled = 2 ** sum(vae.get("spatio_temporal_scaling") or (True, True, True, False))
    geometry = {
        "temporal_stride": vae.get("temporal_compression_ratio") or vae.get("patch_size_t", 1) * scaled,
        "spatial_stride": vae.get("spatial_compression_ratio") or vae.get("patch_size", 4) * scaled,
        "patch": transformer.get("patch_size", 1),
        "latent_channels": transformer.get("in_channels", 128),
    }
    return _as_published("ltx-video", "An LTX-Video model from a folder.", folder, geometry)


def infer_hunyuan(
    folder: Path, index: dict[str, Any], transformer: dict[str, Any], vae: dict[str, Any]
) -> dict[str, Any]:
    """As the published HunyuanVideo: what was fine-tuned for keyframes says so in a card of its own."""
    if transformer.get("image_condition_type"):
        raise ModelError(
            f"{folder} holds an image-to-video HunyuanVideo, which cannot be given keyframes: choose another."
        )
    geometry = {
        "temporal_stride": vae.get("temporal_compression_ratio", 4),
        "spatial_stride": vae.get("spatial_compression_ratio", 8),
        "patch": transformer.get("patch_size", 2),
        "latent_channels": transformer.get("in_channels", 16),
        "distilled": transformer.get("guidance_embeds", True),
    }
    return _as_published("hunyuan-video", "A HunyuanVideo model from a folder.", folder, geometry)


PIPELINES: dict[str, Infer] = {
    "MochiPipeline": infer_mochi,
    **dict.fromkeys(WAN_PIPELINES, infer_wan),
    **dict.fromkeys(("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"), infer_ltx),
    "HunyuanVideoPipeline": infer_hunyuan,
}


def _as_published(known: str, summary: str, folder: Path, geometry: dict[str, Any]) -> dict[str, Any]:
    """The fields of an entry of the catalogue, with the geometry of a folder."""
    entry = entries()[known]
    assert entry.spec is not None
    try:
        spec = BackboneSpec.model_validate(entry.spec.model_dump() | geometry)
    except (ValidationError, TypeError) as error:
        raise _misfit(folder, entry.title, error) from None
    return {
        "title": folder.name,
        "summary": summary,
        "licence": "see its folder",
        "spec": spec,
        "tasks": entry.tasks,
        "why_not": entry.why_not,
        "label": entry.label,
    }


def _misfit(folder: Path, what: str, error: Exception) -> ModelError:
    return ModelError(f"The configs in {folder} are not those of a {what} model ({str(error).split(chr(10))[0]}).")
