"""How a clip's pictures are stored, and what brings those of HDR and wide-gamut clips to sRGB."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from pusa_app.media import _ffmpeg

# Without these, ffmpeg's fast paths shift colours by a level or two and halve the resolution of chroma.
SWS = "flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"

# Lets ffmpeg say how the first frame looks. Side data (notes of the encoder) would be printed too, at any length.
LOOK = (
    *("-map", "0:V:0", "-vf", "sidedata=delete,trim=end_frame=1,showinfo", "-frames:v", "1"),
    *("-map_metadata", "-1", "-map_metadata:s:v", "-1", "-map_chapters", "-1"),
    *("-loglevel", "info", "-f", "null", "pipe:1"),
)

# The transfers of HDR: HLG (phones, television) and PQ (HDR10, Dolby Vision's base layer).
_HDR = ("arib-std-b67", "smpte2084")
_WIDE = ("bt2020", "smpte432")
# cd/m2: the white of paper in HDR (BT.2408), which is white in SDR, and what most HDR is mastered for.
_PAPER_WHITE, _PEAK = 203, 1000


@dataclass(frozen=True)
class Look:
    """A clip's first frame as it is decoded, upright: pixel format, width, height, and ffmpeg's names of its colours.

    What the clip does not tell of its colours is "unknown".
    """

    format: str
    width: int
    height: int
    matrix: str
    primaries: str
    transfer: str

    @property
    def hdr(self) -> bool:
        return self.transfer in _HDR

    @property
    def half_told(self) -> bool:
        """Whether some of the colours' properties are told and some are not; RGB has no matrix to tell."""
        told = [name != "unknown" for name in (self.matrix, self.primaries, self.transfer)]
        return self.matrix != "gbr" and any(told) and not all(told)


def parse_look(log: str) -> Look | None:
    """What ffmpeg said under LOOK; None when it is not in the log."""
    # The last of each: before it stand the file's own words, which could look the same.
    shown = re.findall(r"^\[Parsed_showinfo\S* @ \S+\] n: .* fmt:(\w+) .* s:(\d+)x(\d+) ", log, re.MULTILINE)
    if not shown:
        return None
    colours = (re.findall(rf"\b{name}:([\w-]+)", log) for name in ("color_space", "color_primaries", "color_trc"))
    matrix, primaries, transfer = (names[-1] if names else "unknown" for names in colours)
    return Look(shown[-1][0], int(shown[-1][1]), int(shown[-1][2]), matrix, primaries, transfer)


@functools.cache
def can_convert() -> bool:
    """Whether this ffmpeg has the filters of `to_srgb`; the one that comes along has, a user's own may not."""
    listed = _ffmpeg.run(["-filters"], timeout=60, max_bytes=1_000_000).data.decode(errors="replace")
    return {"zscale", "tonemap"} <= set(listed.split())


def to_srgb(look: Look | None, size: tuple[int, int]) -> list[str]:
    """Filters that scale an HDR or wide-gamut clip to `size` (width, height) and bring it to sRGB, as 8 bits of RGB.

    None for all other clips: their frames are kept in results and checkpoints, and must stay what they are.
    """
    if look is None or not (look.hdr or look.primaries in _WIDE) or not can_convert():
        return []
    # What is HDR and does not tell its primaries or matrix is BT.2020.
    primaries = look.primaries if look.primaries in (*_WIDE, "bt709") else "bt2020"
    matrix = ":in_color_matrix=bt2020" if look.hdr and look.matrix == "unknown" and "yuv" in look.format else ""
    # First the size, though light ought to be added up as light: at 4K the floats below take 0.7 s a frame, and a
    # minute would take a quarter of an hour. In a matrix of ours, since zscale refuses odd sizes and unknown ones.
    scaled = f"scale={size[0]}:{size[1]}{matrix}:out_color_matrix=bt2020:out_range=tv:{SWS},format=yuv444p12le"
    source = f"zscale=min=2020_ncl:rin=limited:pin={primaries}"
    target = "m=gbr:r=full:p=bt709"
    if not look.hdr:
        # One curve on the way in and out: greys stay, whatever curve the clip really has.
        return [scaled, f"{source}:tin=709:{target}:t=709", "format=gbrp"]
    return [
        scaled,
        # Without agamma=0, HLG's gamma of the screen is taken of each channel alone, which strengthens colours.
        f"{source}:tin={look.transfer}:agamma=0:{target}:t=linear:npl={_PAPER_WHITE}",
        "format=gbrpf32le",
        # Mobius leaves all light up to 0.8 of paper white as it is, skin and grey cards among it, and bends what is
        # brighter into the rest: paper becomes 244 of 255, and highlights keep their differences up to the peak, where
        # clipping would make paper and lamps one white. Hable and Reinhard take 50 to 90 levels off paper. The peak is
        # told, or the filter would take it from notes in the file that a copy may not have. Without desaturation: a
        # bright red stays red.
        f"tonemap=mobius:param=0.8:peak={_PEAK / _PAPER_WHITE:.3f}:desat=0",
        "zscale=min=gbr:rin=full:pin=bt709:tin=linear:m=gbr:r=full:p=bt709:t=iec61966-2-1",
        "format=gbrp",
    ]
