"""The shipped weights of mini: they are there, they are small, and they do what the model card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MINI = Path(__file__).parents[2] / "assets" / "mini"
MEGABYTE = 1_000_000


def test_files_are_small_and_safe() -> None:
    sizes = {file: file.stat().st_size for file in MINI.rglob("*") if file.is_file()}
    assert max(sizes.values()) <= 10 * MEGABYTE
    assert sum(sizes.values()) <= 40 * MEGABYTE
    assert {file.suffix for file in sizes} <= {".json", ".safetensors", ".md", ".csv", ".png", ".model", ".txt"}


def test_the_folder_is_a_stock_diffusers_pipeline() -> None:
    index = json.loads((MINI / "model_index.json").read_text())
    assert index["_class_name"] == "MochiPipeline"
    for part in ("scheduler", "text_encoder", "tokenizer", "transformer", "vae"):
        assert (MINI / part).is_dir()
        assert index[part]


@pytest.fixture(scope="module")
def figures():
    from pusa_app.bench.quality import measure

    return measure(6)  # `bench quality` measures many more


def test_the_vae_keeps_what_is_seen(figures) -> None:
    assert figures["vae_psnr"] > 34
    vae = figures["text_to_video"]["VAE round trip"]
    assert vae.color == vae.background == 1
    assert vae.motion == vae.shape == 1


def test_text_to_video_obeys(figures) -> None:
    mini = figures["text_to_video"]["mini"]
    assert mini.color == mini.background == 1
    assert mini.motion >= 5 / 6
    assert mini.shape >= 5 / 6


def test_image_to_video_keeps_the_picture_and_moves_it(figures) -> None:
    mini, vae = figures["image_to_video"]["mini"], figures["image_to_video"]["VAE round trip"]
    assert mini.psnr > 35
    assert mini.jump <= 1.3 * vae.jump + 0.2
    assert mini.jump_after > 0.4  # it is not a frozen picture
    assert mini.color_last == 1
    assert mini.shape_last >= 5 / 6
