"""One run of ffmpeg from a file of unknown origin to a file of ours."""

from __future__ import annotations

from pathlib import Path

from pusa_app.errors import MediaError
from pusa_app.media import _ffmpeg
from pusa_app.media._files import StrPath, label
from pusa_app.media.clips import MAX_CLIP_PIXELS, explain

# Of the source only the pictures: no tags of file or stream, no chapters, no sound.
NO_TAGS = ("-map_metadata", "-1", "-map_metadata:s:v", "-1", "-map_chapters", "-1")


def convert(source: StrPath, name: str, part: Path, arguments: list[str], timeout: float) -> None:
    """Let ffmpeg write `part` from `source`; `arguments` stand between the two. `name` is what `part` will be called.

    Raises MediaError when the source is damaged or takes longer than `timeout` seconds, or the disk is full.
    """
    everything = [*_ffmpeg.untrusted_input(source, MAX_CLIP_PIXELS), *arguments, "-y", _ffmpeg.file_url(part)]
    output = _ffmpeg.run(everything, timeout=timeout, max_bytes=0)
    if not output.ok:
        raise failure(source, name, output, timeout)


def failure(source: StrPath, name: str, output: _ffmpeg.Output, timeout: float) -> MediaError:
    """Why `name` could not be made of `source`, in one line."""
    if output.timed_out:
        return MediaError(f"{label(source)} took more than {timeout:.0f} s to convert: use a shorter or smaller clip.")
    if _ffmpeg.disk_is_full(output.log):
        return MediaError(f"{name} cannot be written: the disk is full.")
    return explain(label(source), output, timeout)
