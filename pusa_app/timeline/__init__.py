"""Keyframes, slots, timelines, noise schedules and recipes: pure data, no torch, no gradio."""

from pusa_app.timeline.grid import MAX_FRAMES, FrameGrid, frames_for_slots, nearest_length
from pusa_app.timeline.recipe import MAX_SEED, Recipe, TaskName, build
from pusa_app.timeline.schedule import MAX_STEPS, NoiseSchedule, ScheduleSpec
from pusa_app.timeline.tasks import TASKS, Ask, Given, Task, get_task
from pusa_app.timeline.timeline import MAX_SIDE, ClipSource, ImageSource, Keyframe, Timeline

__all__ = [
    "MAX_FRAMES",
    "MAX_SEED",
    "MAX_SIDE",
    "MAX_STEPS",
    "TASKS",
    "Ask",
    "ClipSource",
    "FrameGrid",
    "Given",
    "ImageSource",
    "Keyframe",
    "NoiseSchedule",
    "Recipe",
    "ScheduleSpec",
    "Task",
    "TaskName",
    "Timeline",
    "build",
    "frames_for_slots",
    "get_task",
    "nearest_length",
]
