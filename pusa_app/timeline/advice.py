"""Which noise, and where: what is known to work for a task, and what is known to fail.

The ranges are those of the authors of Pusa (image to video 0 to 0.4; start and end 0.2 to 0.3 and 0.4 to 0.7; extension
from a rising ramp to 0.4 or 0.5; see the project's README for sources) and of this project's own measurements.
"""

from __future__ import annotations

import itertools

from pydantic import BaseModel, ConfigDict

from pusa_app.timeline.builders import CROSS_NOISE, LEAST_FREE, crossing
from pusa_app.timeline.options import Options
from pusa_app.timeline.timeline import Keyframe, Length, Timeline

# Up to NEAR a keyframe is as good as exact; from SOFT on it gives way to the one before it.
NEAR, SOFT = 0.1, 0.3


class Band(BaseModel):
    """The noise that is advised for one slot."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    slot: int
    low: float
    high: float


class Advice(BaseModel):
    """bands: one per slot that holds a keyframe; text: what to do, in a sentence or two; warnings: what will fail."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bands: tuple[Band, ...] = ()
    text: str = ""
    warnings: tuple[str, ...] = ()


TEXTS: dict[str, str] = {
    "text-to-video": "Every slot is free: all of it is made from the words.",
    "image-to-video": "First frame: 0 keeps it exactly, 0.2 to 0.4 lets it move naturally.",
    "start-end": "First frame 0 to 0.3, last frame 0.3 to 0.7, so that the motion can arrive in it.",
    "keyframes": "0 is this exact frame, 0.2 to 0.4 this frame with natural motion, 0.7 only its composition.",
    "transition": "Clip A's last slots 0 to 0.3, clip B's first slots 0 to 0.8: the freer, the softer the change.",
    "loop": "Clips nearly clean. A picture: 0 to 0.3 at the start; at the end 0.3 closes firmly, and up to 0.8 lets "
    "things move through the seam where the motion comes back by itself.",
    "extend": "Clean slots go on most exactly; a ramp such as 0.1, 0.2, 0.3, 0.4 lets a new scene begin.",
    "complete": "Keep both sides of the gap clean; raise the noise beside it when the joint looks stiff.",
    "restyle": "0.5 keeps shapes and motion, 0.7 only the composition; above 0.85 little is left of the clip.",
}
CROSS_TEXT = (
    f"The noise of clip A rises from 0 to about {CROSS_NOISE:g} in the middle, that of clip B falls from there to 0: "
    "with less of it where they meet, the picture jumps."
)


def advise(task: str, timeline: Timeline, options: Options | None = None, length: Length | None = None) -> Advice:
    """The advice for a task's timeline as it is now.

    Without options it is for the usual ones. With a gap among them, and with the length of a clip where it is used to
    its end, it also says what lies behind the gap and is not seen. `length` may raise MediaError.
    """
    options = options or Options()
    cross = task == "transition" and options.style == "cross"
    bands = tuple(
        Band(slot=slot, low=low, high=high)
        for keyframe in timeline.keyframes
        for slot in keyframe.slots
        if slot < timeline.grid.num_slots
        for low, high in (_range(task, keyframe, slot, timeline, cross),)
    )
    unseen = _unseen(timeline, options.gap, length) if task == "complete" and options.gap else []
    text = CROSS_TEXT if cross else TEXTS.get(task, "")
    return Advice(bands=bands, text=text, warnings=(*_warnings(timeline), *unseen))


def _range(task: str, keyframe: Keyframe, slot: int, timeline: Timeline, cross: bool) -> tuple[float, float]:
    first, last = slot == 0, slot == timeline.grid.num_slots - 1
    if task == "restyle":
        return 0.5, 0.85
    if keyframe.source.kind == "clip":
        if cross:
            usual = crossing(timeline.grid.num_slots)[slot]
            return round(max(0.0, usual - 0.1), 2), round(min(0.95, usual + 0.1), 2)
        if keyframe.slot == 0:
            return (0.0, 0.3) if task == "transition" else (0.0, 0.4)
        at_end = keyframe.slots.stop == timeline.grid.num_slots
        # A clip that is added by hand is as free as a picture there, which models advise up to 0.5.
        return (0.0, 0.8) if task == "transition" and at_end else (0.0, 0.5)
    if task == "loop":
        return (0.0, 0.3) if first else (0.3, 0.8)
    if first:
        return (0.0, 0.3) if task == "start-end" else (0.0, 0.4)
    return (0.3, 0.7) if last else (0.2, 0.7)


def _warnings(timeline: Timeline) -> list[str]:
    found = []
    multipliers = timeline.noise_multipliers()
    if timeline.keyframes and all(m == 0 for m in multipliers):
        return ["Every slot is clean: there is nothing to make. Leave a slot free or raise its noise."]
    if timeline.keyframes and all(m >= 0.95 for m in multipliers):
        found.append("The keyframes are nearly pure noise, so they are ignored: lower their noise.")
    stride = timeline.grid.temporal_stride
    ordered = sorted(timeline.keyframes, key=lambda k: k.slot)
    for before, after in itertools.pairwise(ordered):
        free = after.slot - before.slots.stop
        known = before.noises[-1] <= NEAR and after.noises[0] < SOFT
        if free < LEAST_FREE and known and not _goes_on(before, after, stride):
            clean = "clean" if before.noises[-1] == 0 == after.noises[0] else "nearly clean"
            found.append(
                f"{'No' if free < 1 else f'Only {free}'} slot is free between the {clean} slots {before.slots[-1]} and "
                f"{after.slot}: the picture will jump. Give it more room, or raise the noise of the later one to "
                f"{SOFT:g} or more."
            )
    return found


def _unseen(timeline: Timeline, gap: tuple[int, int], length: Length | None) -> list[str]:
    """That frames follow a gap and none of them is on the timeline."""
    sources = [k.source for k in timeline.keyframes if k.source.kind == "clip"]
    if not sources or any(source.start >= gap[1] for source in sources):
        return []
    stride, clip = timeline.grid.temporal_stride, sources[0]
    end = clip.end or (length(clip.path, timeline.grid.fps) if length else 0)
    behind = end - gap[1]
    if behind < 1:
        return []
    if behind < stride:
        follow = "frame follows" if behind == 1 else "frames follow"
        return [
            f"Only {behind} {follow} the gap, too few for the model to see: the picture may jump there. "
            f"End the gap earlier, so that {stride} follow it."
        ]
    return [
        "The model does not see what follows the gap: the picture may jump there. Make the gap shorter, or leave the "
        "end of the clip on the timeline."
    ]


def _goes_on(before: Keyframe, after: Keyframe, stride: int) -> bool:
    """Whether two keyframes are frames of one clip in their places."""
    if not before.source.kind == after.source.kind == "clip" or before.source.path != after.source.path:
        return False
    return before.source.start - before.frames(stride).start == after.source.start - after.frames(stride).start
