"""Keyframes, slots, timelines, noise schedules, tasks and recipes: pure data, no torch, no gradio."""

from pusa_app.timeline.advice import Advice, Band, advise
from pusa_app.timeline.builders import Given
from pusa_app.timeline.grid import MAX_FRAMES, FrameGrid, frames_for_slots, nearest_length
from pusa_app.timeline.options import Options, PictureNoise, TaskNoise, last_picture
from pusa_app.timeline.plan import Kept, Made, Piece, Plan
from pusa_app.timeline.recipe import (
    LATER_FIELDS,
    MAX_SEED,
    WHOLE_INTERVAL,
    LoraChoice,
    Recipe,
    TaskName,
    build,
    hub_parts,
    is_name,
)
from pusa_app.timeline.remap import remap
from pusa_app.timeline.schedule import MAX_STEPS, NoiseSchedule, ScheduleSpec
from pusa_app.timeline.sweep import MAX_CELLS, Axis, PresetAxis, Sweep, is_sweep, new_sweep
from pusa_app.timeline.tasks import TASKS, Ask, Task, default_task, get_task, plan_of
from pusa_app.timeline.timeline import (
    MAX_SIDE,
    ClipSource,
    ImageSource,
    Keyframe,
    PartSource,
    Source,
    Timeline,
)

__all__ = [
    "LATER_FIELDS",
    "MAX_CELLS",
    "MAX_FRAMES",
    "MAX_SEED",
    "MAX_SIDE",
    "MAX_STEPS",
    "TASKS",
    "WHOLE_INTERVAL",
    "Advice",
    "Ask",
    "Axis",
    "Band",
    "ClipSource",
    "FrameGrid",
    "Given",
    "ImageSource",
    "Kept",
    "Keyframe",
    "LoraChoice",
    "Made",
    "NoiseSchedule",
    "Options",
    "PartSource",
    "PictureNoise",
    "Piece",
    "Plan",
    "PresetAxis",
    "Recipe",
    "ScheduleSpec",
    "Source",
    "Sweep",
    "Task",
    "TaskName",
    "TaskNoise",
    "Timeline",
    "advise",
    "build",
    "default_task",
    "frames_for_slots",
    "get_task",
    "hub_parts",
    "is_name",
    "is_sweep",
    "last_picture",
    "nearest_length",
    "new_sweep",
    "plan_of",
    "remap",
]
