"""The checked intake: uploads are read once, within limits, and from then on only our own copy of them is opened.

A copy holds the pixels and nothing else: no metadata, no sound, no second stream. It is exact, because frames of a clip
that a result keeps are promised as they were decoded from what the user gave.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pusa_app.errors import MediaError
from pusa_app.media._convert import NO_TAGS, convert
from pusa_app.media._files import StrPath, atomic_output, label, writing
from pusa_app.media._look import SWS
from pusa_app.media.clips import (
    MAX_CLIP_FRAMES,
    MAX_CLIP_SECONDS,
    ClipInfo,
    check_clip,
    clip_look,
    listing,
    read_recipe_text,
)
from pusa_app.media.images import ImageInfo, upright_image
from pusa_app.media.writer import BITEXACT, ENCODER_THREADS

MAX_COPY_BYTES = 4_000_000_000  # what check_clip takes
TAKE_TIMEOUT = 300.0

# What libx264 takes as it is. RGB is not among it: H.264 gives it back in another layout, which scales differently.
_H264_FORMATS = {
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"),
    *("yuv420p10le", "yuv422p10le", "yuv444p10le", "gray10le"),
}


def take_image(source: StrPath, out: StrPath) -> ImageInfo:
    """Check a picture and write a PNG of its own pixels to `out`: upright, sRGB, nothing but the pixels.

    `load_image` gives the same pixels for both, at any size. A photo of 12 megapixels takes one to two seconds. Raises
    MediaError as `check_image`, or when `out` cannot be written; then nothing is left of it.
    """
    pixels = upright_image(source)
    with atomic_output(out) as part, writing(label(out)):
        # Level 1: the copy is read once or twice, and the best compression takes ten times as long.
        Image.fromarray(pixels).save(part, format="PNG", compress_level=1)
    return ImageInfo(pixels.shape[1], pixels.shape[0], "PNG")


def take_clip(source: StrPath, out: StrPath) -> ClipInfo:
    """Check a clip and write a lossless MP4 of its pictures to `out`: upright, no sound, nothing but the pictures.

    `load_clip` and `count_frames` give the same for both, at any size and rate: size, pixel format, colour description,
    the shape of the pixels and the time of every frame stay as they are (pixels that are not square stay so too, since
    a second scaling would change them). The pictures are H.264 where it can hold them exactly, else (RGB of GIFs, odd
    sizes, rare formats) FFV1. A video that this program made is copied as it is compressed, which takes a fraction of
    the space. Not exact: pictures that change their size or format on the way are brought to the first's, and in motion
    JPEG of an odd size colour moves by a quarter of a pixel.

    On two shared cores a clip of 37 frames at 64x64 takes 0.2 s; five seconds of a noisy 1280x720 clip at 30 frames a
    second take 6 s and become 128 MB (16 MB as they came).

    Raises MediaError as `check_clip`; when it takes more than TAKE_TIMEOUT seconds or MAX_COPY_BYTES; or when `out`
    cannot be written. Then nothing is left of it, and no ffmpeg.
    """
    info = check_clip(source)
    with atomic_output(out) as part:
        if _made_here(source) and _remuxed(source, out, part):
            return info
        _encoded(source, out, part)
        try:
            return check_clip(part)
        except MediaError:
            raise MediaError(f"{label(source)} is damaged or not a usual clip: export it again.") from None


def _made_here(source: StrPath) -> bool:
    try:
        return bool(read_recipe_text(source))
    except MediaError:
        return False


def _remuxed(source: StrPath, out: StrPath, part: Path) -> bool:
    """Copy the compressed pictures; False when they do not come out frame by frame as those of the source.

    Anybody can write our tag, so the frames decide: their pixels, times and durations.
    """
    try:
        convert(
            source, label(out), part, ["-map", "0:V:0", "-c", "copy", *NO_TAGS, *BITEXACT, "-f", "mp4"], TAKE_TIMEOUT
        )
        wanted, made = (listing(label(source), path, [], TAKE_TIMEOUT) for path in (source, part))
    except MediaError:
        return False  # the other way says what is wrong, if it is not just this one that does not work
    return wanted == made


def _encoded(source: StrPath, out: StrPath, part: Path) -> None:
    look = clip_look(source)
    coding = ["-c:v", "ffv1", "-level", "3", "-g", "1"]
    scale = []
    if look is not None:
        # Pictures of another size on the way would end the encoder; for all others this does nothing.
        scale = ["-vf", f"scale={look.width}:{look.height}:{SWS}"]
        if look.format in _H264_FORMATS and look.width % 2 == look.height % 2 == 0:
            # No B-frames: times need no edit list. qp instead of crf: 10 bits are lossless at it too.
            coding = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-bf", "0", "-pix_fmt", look.format]
        elif look.half_told:
            # For pictures that do not carry their colours themselves, ffmpeg would note all of them or none.
            coding += ["-movflags", "+write_colr"]
    arguments = [
        *("-map", "0:V:0", *NO_TAGS, *BITEXACT, *scale, *coding, "-threads", ENCODER_THREADS),
        # Every frame at its own time, counted in the units of the source.
        *("-fps_mode", "passthrough", "-enc_time_base", "demux", "-avoid_negative_ts", "make_zero"),
        *("-t", str(MAX_CLIP_SECONDS + 10), "-frames:v", str(MAX_CLIP_FRAMES)),
        *("-fs", str(MAX_COPY_BYTES), "-f", "mp4"),
    ]
    convert(source, label(out), part, arguments, TAKE_TIMEOUT)
    # ffmpeg ends without a word when it reaches the limit.
    if part.stat().st_size >= MAX_COPY_BYTES:
        raise MediaError(f"{label(source)} is too long or too large: cut it to the part that is needed.")
