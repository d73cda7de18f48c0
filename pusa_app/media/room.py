"""How much room there is on a disk, and how much a run may need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pusa_app.errors import MediaError
from pusa_app.media._files import StrPath, label

# Of a raw frame, per pixel: 3 bytes. What x264 makes of pure noise at the default quality is below 3 bytes too.
_RAW_BYTES = 3
_CLIP_BYTES = 3
# Poster, recipe, checkpoints of a few latents, the file system's own needs.
_OTHER_BYTES = 64_000_000


def free_bytes(folder: StrPath) -> int:
    """Bytes that this account may still write on the disk of `folder`, which need not exist yet.

    Raises MediaError when the disk cannot be asked.
    """
    path = Path(os.path.abspath(folder))
    existing = next(parent for parent in (path, *path.parents) if parent.exists() or parent == parent.parent)
    try:
        return shutil.disk_usage(existing).free
    except OSError as error:
        raise MediaError(f"The disk of {label(folder)} cannot be read: {error.strerror or error}.") from None


def needed_bytes(width: int, height: int, num_frames: int, videos: int = 1) -> int:
    """An upper estimate of the bytes on disk that a run takes until it is done.

    num_frames: all frames of the result, and those that are made and not shown (where parts overlap). It counts every
    frame raw, since an extension backwards keeps them all until its end, and an MP4 of pure noise. `videos` is how many
    MP4s are made of as many frames each: the cells of a sweep and its grid. Latents of a checkpoint are among the fixed
    64 MB.
    """
    if min(width, height, num_frames, videos) < 1:
        raise ValueError(
            f"width, height, num_frames and videos must be at least 1, not {width, height, num_frames, videos}"
        )
    return width * height * num_frames * (_RAW_BYTES + _CLIP_BYTES * videos) + _OTHER_BYTES
