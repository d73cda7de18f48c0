"""A card for a diffusers folder of the Wan family that has none: geometry from its configs, the rest as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec
from pusa_app.timeline import ScheduleSpec, TaskName

SKYREELS = "SkyReelsV2DiffusionForcingPipeline"
WAN_PIPELINES = ("WanPipeline", SKYREELS)


def infer_wan(folder: Path, index: dict[str, Any], transformer: dict[str, Any], vae: dict[str, Any]) -> dict[str, Any]:
    """The fields of a ModelCard, from model_index.json and the configs of the parts. ModelError when they fit no Wan.

    Wan 2.1 and 2.2 T2V need Pusa's LoRA for more than a prompt, and take it; TI2V-5B was trained for a clean first
    frame; SkyReels-V2-DF for a noise of each frame's own.
    """
    summary, tasks, defaults = _published(index)
    try:
        spec = BackboneSpec(
            temporal_stride=vae.get("scale_factor_temporal") or 4,
            spatial_stride=vae.get("scale_factor_spatial") or 8,
            patch=(transformer.get("patch_size") or (1, 2, 2))[-1],
            latent_channels=transformer.get("in_channels", 16),
            max_text_tokens=512,
            **defaults,
        )
    except (ValidationError, TypeError, IndexError) as error:
        raise ModelError(
            f"The configs in {folder} are not those of a Wan model ({str(error).split(chr(10))[0]})."
        ) from None
    return {"title": folder.name, "summary": summary, "licence": "see its folder", "spec": spec, "tasks": tasks}


def _published(index: dict[str, Any]) -> tuple[str, tuple[TaskName, ...], dict[str, Any]]:
    everything: tuple[TaskName, ...] = get_args(TaskName)
    if index.get("_class_name") == SKYREELS:
        return (
            "A SkyReels-V2 diffusion forcing model from a folder.",
            everything,
            _defaults("skyreels", (960, 544), 97, 24, guidance=6, shift=8),
        )
    if index.get("expand_timesteps"):
        return (
            "A Wan 2.2 TI2V model from a folder.",
            ("text-to-video", "image-to-video"),
            _defaults("wan", (1280, 704), 121, 24, guidance=5, steps=50),
        )
    boundary = index.get("boundary_ratio")
    return (
        "A Wan model from a folder; with Pusa's LoRA it does all tasks.",
        everything,
        _defaults("wan", (832, 480), 81, 16, guidance=3) | {"boundary": boundary},
    )


def _defaults(
    family: str,
    size: tuple[int, int],
    num_frames: int,
    fps: int,
    *,
    guidance: float,
    steps: int = 30,
    shift: float = 5,
) -> dict[str, Any]:
    return {
        "family": family,
        "width": size[0],
        "height": size[1],
        "num_frames": num_frames,
        "max_frames": num_frames,
        "fps": fps,
        "steps": steps,
        "guidance": guidance,
        "schedule": ScheduleSpec(kind="shift", shift=shift),
    }
