"""Keyframes, slots, timelines, noise schedules and recipes: pure data, no torch, no gradio."""

from pusa_app.timeline.grid import FrameGrid, frames_for_slots, nearest_length
from pusa_app.timeline.recipe import MAX_SEED, Recipe, TaskName, build
from pusa_app.timeline.schedule import MAX_STEPS, NoiseSchedule, ScheduleSpec
from pusa_app.timeline.timeline import ClipSource, ImageSource, Keyframe, Timeline

__all__ = [
    "MAX_SEED",
    "MAX_STEPS",
    "ClipSource",
    "FrameGrid",
    "ImageSource",
    "Keyframe",
    "NoiseSchedule",
    "Recipe",
    "ScheduleSpec",
    "TaskName",
    "Timeline",
    "build",
    "frames_for_slots",
    "nearest_length",
]
