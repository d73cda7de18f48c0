"""Reading, checking, fitting and writing images and clips.

Frames are uint8 arrays (n, height, width, 3), RGB. Whatever is wrong with a file ends in a MediaError of one line.
Uploads are hostile until proven otherwise: what a file is follows from its content, never from its name, and every
dimension of it has a limit (images.MAX_IMAGE_PIXELS, clips.MAX_CLIP_*).
"""

from pusa_app.media._files import atomic_output, remove_leftovers, scratch_folder, writing
from pusa_app.media.clips import (
    ClipInfo,
    check_clip,
    count_frames,
    load_clip,
    most_frames,
    read_frames,
    read_recipe_text,
    stream_clip,
)
from pusa_app.media.color import ColorMatch
from pusa_app.media.export import ENDINGS, QUALITIES, export_clip
from pusa_app.media.fit import Fit, Focus, Frames
from pusa_app.media.grid import Cell, Grid
from pusa_app.media.images import ImageInfo, check_image, load_image
from pusa_app.media.intake import take_clip, take_image
from pusa_app.media.room import free_bytes, needed_bytes
from pusa_app.media.writer import ClipWriter, save_poster, write_gif

__all__ = [
    "ENDINGS",
    "QUALITIES",
    "Cell",
    "ClipInfo",
    "ClipWriter",
    "ColorMatch",
    "Fit",
    "Focus",
    "Frames",
    "Grid",
    "ImageInfo",
    "atomic_output",
    "check_clip",
    "check_image",
    "count_frames",
    "export_clip",
    "free_bytes",
    "load_clip",
    "load_image",
    "most_frames",
    "needed_bytes",
    "read_frames",
    "read_recipe_text",
    "remove_leftovers",
    "save_poster",
    "scratch_folder",
    "stream_clip",
    "take_clip",
    "take_image",
    "write_gif",
    "writing",
]
