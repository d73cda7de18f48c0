"""`export`: a video as MP4, WebM, GIF or single pictures, with its recipe or without."""

from __future__ import annotations

import argparse
from typing import Any

from pusa_app.arguments import argument, integer, shown, to_path
from pusa_app.errors import MediaError
from pusa_app.outputs import checked_file, writable

KINDS = {".mp4": "mp4", ".webm": "webm", ".gif": "gif", ".zip": "frames"}
QUALITIES = ("high", "medium", "small")
EPILOG = """\
The ending of FILE says what it becomes:
  .mp4    H.264; the same pictures without a loss, unless a quality or a width is given
  .webm   VP9
  .gif    repeats without end
  .zip    every frame as a PNG, and recipe.json
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's commands."""
    export = commands.add_parser(
        "export",
        help="a video as MP4, WebM, GIF or single pictures",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    export.add_argument("video", type=to_path, metavar="VIDEO")
    export.add_argument("--out", required=True, type=to_path, metavar="FILE", help="the file to write")
    export.add_argument(
        "--quality",
        type=argument(parse_quality),
        metavar="high|medium|small|CRF",
        help="of an MP4 or WebM; CRF: 0 (best) to 51 for MP4, 63 for WebM",
    )
    export.add_argument("--width", type=integer(2, 4096), metavar="N", help="in pixels; the height follows")
    export.add_argument("--without-recipe", action="store_true", help="leave out how the video was made")
    export.set_defaults(run=_export)


def parse_quality(text: str) -> str | int:
    """ "small" or "23" -> a quality of `media.export_clip`; raises ValueError."""
    if text in QUALITIES:
        return text
    if not text.isascii() or not text.isdigit() or len(text) > 2:
        raise ValueError(f"a quality is {', '.join(QUALITIES)} or a number from 0 to 63, not {shown(text)}")
    return int(text)


def _export(options: argparse.Namespace) -> int:
    kind = KINDS.get(options.out.suffix.lower())
    if kind is None:
        raise MediaError(f"{options.out.name or options.out} has none of the endings {', '.join(KINDS)}.")
    out = checked_file(options.out, [options.video])
    from pusa_app.media import export_clip

    with writable(out.parent):
        export_clip(
            options.video,
            out,
            kind,
            quality=options.quality,
            recipe=not options.without_recipe,
            width=options.width,
        )
    print(options.out)
    return 0
