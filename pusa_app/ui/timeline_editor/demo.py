"""The editor alone, to try and to test: python -m pusa_app.ui.timeline_editor.demo [--slots 7] [--keyframes 3]."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from pusa_app.timeline import ClipSource, FrameGrid, ImageSource, Keyframe, Timeline, frames_for_slots
from pusa_app.ui.placing import placed
from pusa_app.ui.player import data_url, publish, publish_bytes
from pusa_app.ui.theme import look
from pusa_app.ui.timeline_editor.editor import TimelineEditor

STRIDE, FPS, SIDE = 6, 12.0, 64
CLIP_FRAMES = 30
COLOURS = ((200, 60, 50), (60, 120, 190), (90, 150, 80), (210, 170, 60), (140, 90, 160), (70, 150, 150))
ADVICE = {
    "bands": [{"slot": 0, "low": 0.2, "high": 0.4}],
    "text": "For natural motion the first frame needs a noise of 0.2 to 0.4.",
    "warnings": ["The two pictures differ a lot: give the second one a noise of 0.4 or more."],
}
RESULT = [
    {"kind": "kept", "frames": 48, "title": "clip A"},
    {"kind": "made", "frames": 37, "title": "made"},
    {"kind": "kept", "frames": 24, "title": "clip B"},
]


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7861)
    parser.add_argument("--slots", type=int, default=7)
    parser.add_argument("--keyframes", type=int, default=0, help="every third of them a clip of two slots")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        page = build(example(Path(folder), options.slots, options.keyframes), Path(folder))
        page.launch(
            server_name="127.0.0.1", server_port=options.port, ssr_mode=False, quiet=True, _frontend=False, **look()
        )


def build(timeline: Timeline, folder: Path) -> gr.Blocks:
    """The editor, buttons that change it from Python, a player, and what Python gets from it."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    with gr.Blocks(title="Timeline editor", analytics_enabled=False, fill_width=True) as page:
        editor = TimelineEditor(timeline, player="#player video", slots_max=60)
        with gr.Row(elem_id="buttons"):
            for name, update in _updates(timeline, folder).items():
                button = gr.Button(name, size="sm", min_width=80)
                button.click(lambda update=update: update, None, editor, **quiet)
        with gr.Row():
            gr.Video(publish(clip(folder / "player.mp4", timeline.grid.num_frames)), elem_id="player", height=160)
            told = gr.Textbox(elem_id="told", label="What Python gets", lines=6)
            event = gr.Textbox(elem_id="event", label="Last event")
        editor.input(_told, editor, told, show_progress="hidden", trigger_mode="always_last", api_name="told")
        asked = {"inputs": None, "outputs": [event, editor], **quiet, "trigger_mode": "multiple"}
        editor.take(_taken, **asked)
        editor.library_pick(_picked, **asked)
        there = gr.Button("Send back", visible=False)
        there.click(lambda value: value, editor, editor, show_progress="hidden", api_name="send_back")
    return page


def _told(timeline: Timeline | None) -> str:
    return "" if timeline is None else timeline.model_dump_json()


def _taken(event: gr.EventData) -> tuple[str, dict[str, Any]]:
    """A picture takes its time, so that somebody can do something meanwhile."""
    time.sleep(1)
    frame = publish_bytes(lambda file: picture(file, COLOURS[3]), "frame.png")
    return f"take {event.slot} {event.seconds:.2f}", placed(lambda: frame, event.slot, event.order)


def _picked(event: gr.EventData) -> tuple[str, dict[str, Any]]:
    made = publish_bytes(lambda file: clip(file, CLIP_FRAMES), "made.mp4")
    return f"library_pick {event.id} {event.slot}", placed(lambda: made, event.slot, event.order)


def _updates(timeline: Timeline, folder: Path) -> dict[str, Any]:
    """What the program may do with the editor, by the name of a button."""
    short = timeline.grid.model_copy(update={"num_frames": frames_for_slots(4, STRIDE)})
    thumb = data_url(np.full((40, 60, 3), COLOURS[1], np.uint8))
    library = [{"id": "one", "title": "a <b>cat</b> {{value}}", "picture": thumb}]
    return {
        "Preset": example(folder, timeline.grid.num_slots, 2),
        "Shorter": gr.update(value=timeline.model_copy(update={"grid": short}), notice="The clip is shorter now."),
        "Advice": gr.update(advice=ADVICE),
        "Result": gr.update(result=RESULT),
        "Library": gr.update(library=library),
        "Lock": gr.update(readonly=True),
        "Unlock": gr.update(readonly=False),
    }


def example(folder: Path, slots: int, keyframes: int) -> Timeline:
    """A timeline with so many keyframes, evenly spread; every third is a clip over two slots where there is room."""
    grid = FrameGrid(num_frames=frames_for_slots(slots, STRIDE), temporal_stride=STRIDE, fps=FPS)
    made, room = [], slots
    for number in range(keyframes):
        slot = slots - room
        left = keyframes - number
        wide = number % 3 == 2 and room > left
        made.append(_keyframe(folder, number, slot, 2 if wide else 1))
        room -= max(made[-1].span, room // left)
    return Timeline(grid=grid, width=SIDE, height=SIDE, keyframes=tuple(made))


def _keyframe(folder: Path, number: int, slot: int, span: int) -> Keyframe:
    colour = COLOURS[number % len(COLOURS)]
    if span == 1:
        path = picture(folder / f"picture-{number}.png", colour)
        return Keyframe(slot=slot, source=ImageSource(path=path), noise=0.2)
    path = clip(folder / "clip.mp4", CLIP_FRAMES)
    return Keyframe(slot=slot, span=span, source=ClipSource(path=path, start=3), noise=(0.1, 0.5))


def picture(path: Path, colour: tuple[int, int, int]) -> str:
    """A wide picture with a bright square on the left."""
    from PIL import Image

    pixels = np.full((120, 180, 3), colour, np.uint8)
    pixels[30:90, 20:80] = 235
    Image.fromarray(pixels).save(path)
    return str(path)


def clip(path: Path, frames: int) -> str:
    """A clip of a bar that goes from left to right."""
    from pusa_app.media import ClipWriter

    if not path.exists():
        with ClipWriter(path, 96, 64, FPS) as writer:
            for frame in range(frames):
                pixels = np.full((64, 96, 3), (34, 44, 52), np.uint8)
                x = round(frame / frames * 84)
                pixels[:, x : x + 12] = (230, 190, 90)
                writer.write(pixels[None])
    return str(path)


if __name__ == "__main__":
    main()
