"""The things in a recipe by role: what `pusa_app.timeline.tasks` calls an ask, found again on a finished timeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pusa_app.timeline import Given, Keyframe, Recipe, build


def given_of(recipe: Recipe) -> dict[str, Given]:
    """The things of a recipe by role, as a preset takes them: its files, and which frames of a clip are used.

    Raises MediaError when a clip cannot be read.
    """
    found: dict[str, Given] = {}
    for role, keyframe, by_task in roles_of(recipe):
        source = keyframe.source
        assert source.kind != "part"
        fields: dict[str, Any] = {"path": source.path, "fit": keyframe.fit, "focus": keyframe.focus}
        if source.kind == "clip":
            fields |= _range_of(keyframe, recipe, by_task)
        # A clip that is looped stands at both ends: the later keyframe says where it starts, the first where it stops.
        before = found[role].model_dump(exclude_unset=True) if role in found else {}
        found[role] = build(Given, before | fields, what="clip")
    return found


def _range_of(keyframe: Keyframe, recipe: Recipe, by_task: bool) -> dict[str, int]:
    """frames, start and stop of a clip as Given has them; what would say no more than the default is left out."""
    from pusa_app.media import count_frames

    source, grid = keyframe.source, recipe.timeline.grid
    assert source.kind == "clip"
    frames = count_frames(source.path, grid.fps)
    start, stop = source.begin, frames if source.end is None else min(source.end, frames)
    if by_task and keyframe.slot == 0 and recipe.task in ("transition", "loop", "extend"):
        stop = min(stop, source.start + keyframe.num_frames(grid.temporal_stride))
    elif recipe.task != "complete":
        start = source.start
    return {"frames": frames} | ({"start": start} if start else {}) | ({"stop": stop} if stop < frames else {})


def roles_of(recipe: Recipe) -> list[tuple[str, Keyframe, bool]]:
    """(role, keyframe, whether the task places it by itself) of every keyframe.

    A file that stands in several places has one role.
    """
    found: list[tuple[str, Keyframe, bool]] = []
    names: dict[tuple[str, str], str] = {}  # of what the task does not place, by kind and path
    for keyframe in recipe.timeline.keyframes:
        if keyframe.source.kind == "part":
            continue
        if role := _asked(keyframe, recipe):
            found.append((role, keyframe, True))
            continue
        file = keyframe.source.kind, keyframe.source.path
        if file not in names:
            taken = {role for role, _, _ in found}
            names[file] = next(name for name in _usual(keyframe, recipe) if name not in taken)
        found.append((names[file], keyframe, False))
    return found


def _asked(keyframe: Keyframe, recipe: Recipe) -> str | None:
    """The ask of the recipe's task that a keyframe fulfils."""
    first, last = keyframe.slot == 0, keyframe.slots.stop == recipe.timeline.grid.num_slots
    anchors = last if recipe.options.direction == "backwards" else first
    return {
        ("image-to-video", "image"): "image" if first else None,
        ("start-end", "image"): "image" if first else "end" if last else None,
        ("loop", "image"): "image" if first or last else None,
        ("loop", "clip"): "clip" if first or last else None,
        ("transition", "clip"): "clip" if first else "clip_b" if last else None,
        ("extend", "clip"): "clip" if anchors else None,
        ("complete", "clip"): "clip",
        ("restyle", "clip"): "clip" if first else None,
    }.get((recipe.task, keyframe.source.kind))


def _usual(keyframe: Keyframe, recipe: Recipe) -> Iterator[str]:
    """Names for what a task does not ask for, the best one first."""
    kind = "picture" if keyframe.still else "clip"
    if recipe.task == "keyframes":
        last = keyframe.slots.stop == recipe.timeline.grid.num_slots
        yield "clip" if kind == "clip" else "image" if keyframe.slot == 0 else "end" if last else "middle"
    yield from (f"{kind}-{number}" for number in itertools.count(1))
