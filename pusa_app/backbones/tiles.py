"""Decode a clip in tiles of the picture, one after the other, each slot by slot, and blend them where they overlap.

A tile sees nothing of the picture around it, so the result is not that of decoding it whole: it is for clips that do
not fit otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from pusa_app.models.plan_cost import tile_starts

FRAMES_AT_ONCE = 16


def decode_tiled(
    decode: Callable[[torch.Tensor], Iterator[torch.Tensor]], latents: torch.Tensor, tile: int, stride: int
) -> Iterator[torch.Tensor]:
    """Raw latents (C, F, h, w) -> frames (3, n, H, W) on the CPU. decode: latents of a tile -> pieces (3, n, H, W).

    tile: pixels of its side; stride: the VAE's in space. The whole clip is in the machine's memory in half precision.
    """
    height, width = (side * stride for side in latents.shape[-2:])
    rows, columns = (_places(side, tile, stride) for side in (height, width))
    canvas: torch.Tensor | None = None
    for top, bottom, row_weights in rows:
        for left, right, column_weights in columns:
            part = latents[..., top // stride : bottom // stride, left // stride : right // stride]
            frames = torch.cat([piece.float().cpu() for piece in decode(part)], dim=1)
            if canvas is None:
                canvas = torch.zeros(*frames.shape[:2], height, width, dtype=torch.float16)
            weights = row_weights[:, None] * column_weights
            canvas[:, :, top:bottom, left:right] += (frames * weights).half()
            del frames
    assert canvas is not None
    yield from canvas.split(FRAMES_AT_ONCE, dim=1)


def _places(side: int, tile: int, multiple: int) -> list[tuple[int, int, torch.Tensor]]:
    """(start, stop, weights) of the tiles of a side; where they overlap one fades into the next, and the weights of a
    place add up to one."""
    starts = tile_starts(side, tile, multiple)
    stops = [min(start + tile, side) for start in starts]
    total, ramps = torch.zeros(side), []
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        ramp = torch.ones(stop - start)
        if number:
            overlap = stops[number - 1] - start
            ramp[:overlap] = (torch.arange(overlap) + 1) / (overlap + 1)
        if number + 1 < len(starts):
            overlap = stop - starts[number + 1]
            ramp[-overlap:] *= 1 - (torch.arange(overlap) + 1) / (overlap + 1)
        total[start:stop] += ramp
        ramps.append(ramp)
    return [(start, stop, ramp / total[start:stop]) for start, stop, ramp in zip(starts, stops, ramps, strict=True)]
