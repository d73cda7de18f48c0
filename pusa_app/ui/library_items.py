"""What the Library shows of jobs: a line for the grid, all facts for one, what differs between two."""

from __future__ import annotations

import base64
import io
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pusa_app.errors import MediaError
from pusa_app.jobs import Job
from pusa_app.pace import clock
from pusa_app.studio import Studio
from pusa_app.timeline import TASKS, WHOLE_INTERVAL, Recipe, Sweep
from pusa_app.ui import strings
from pusa_app.ui.player import data_url, publish, told_loras
from pusa_app.ui.visitors import WHOLE, recipe_of, video_of

PAGE = 60  # videos that are loaded at a time
MOST = 5000  # of one answer
MAX_TEXT = 200
TITLE = 300  # characters of a prompt in the grid
POSTER = 320  # pixels, the longer side
SMALL_BYTES = 8_000  # a poster that is sent as it is
CHEAP_BYTES = 20_000_000  # a video above it is not fetched only because the pointer is over it
LOOKS = 60  # pictures of one answer


@dataclass(frozen=True)
class Query:
    """What of the library is asked for. asked: a number that the answer gives back, so that a late one is known.
    count: whether the answer says how much room all of it takes, which no typing changes."""

    text: str = ""
    task: str = ""
    model: str = ""
    favourite: bool = False
    deleted: bool = False
    newest: bool = True
    limit: int = PAGE
    asked: int = 0
    count: bool = True

    @classmethod
    def of(cls, data: Any) -> Query:
        """From what the page sent, which a program may have written: what makes no sense is left at its default."""
        sent = data if isinstance(data, Mapping) else {}
        values: dict[str, Any] = {}
        for name, default in vars(cls()).items():
            value = sent.get(name)
            if type(value) is type(default):
                values[name] = value
        values["text"] = values.get("text", "")[:MAX_TEXT]
        values["limit"] = min(max(values.get("limit", PAGE), 1), MOST)
        return cls(**values)


def listed(studio: Studio, owner: str, query: Query) -> dict[str, Any]:
    """What the grid shows: as many as were asked for, whether there are more, and how much room they take."""
    jobs = studio.library(
        owner,
        text=query.text.strip(),
        task=query.task,
        model=query.model,
        favourite=query.favourite,
        deleted=query.deleted,
        newest=query.newest,
        limit=query.limit + 1,
    )
    return {
        "asked": query.asked,
        "items": [item(studio, job) for job in jobs[: query.limit]],
        "more": len(jobs) > query.limit,
        "usage": usage(studio, owner) if query.count else None,
        "going": bool(studio.queue(owner)),
    }


def usage(studio: Studio, owner: str) -> str:
    """ "12 videos, 34 MB" """
    used, quota = studio.usage(owner)
    count = len(studio.library(owner, limit=MOST))
    if not count and not used:
        return ""
    videos = "1 video" if count == 1 else f"{count} videos"
    words = strings.USAGE_OF if quota else strings.USAGE
    return words.format(videos=videos, used=size(used), quota=size(quota or 0))


def size(amount: float) -> str:
    """Bytes as people read them: 340 kB, 1.2 MB."""
    if amount < 1_000_000:
        return f"{max(1, round(amount / 1000)) if amount else 0} kB"
    unit, name = (1e9, "GB") if amount >= 999_500_000 else (1e6, "MB")
    return f"{amount / unit:.1f} {name}" if amount < 10 * unit else f"{amount / unit:.0f} {name}"


def item(studio: Studio, job: Job) -> dict[str, Any]:
    """A job in the grid."""
    sweep = studio.sweep(job)
    return {
        "id": job.id,
        "title": job.prompt[:TITLE],
        "task": TASKS[job.task].title if job.task in TASKS else job.task,
        "model": job.model,
        "seed": job.seed,
        "made": job.finished or job.created,
        "took": took(job),
        "favourite": job.favourite,
        "deleted": job.deleted is not None,
        "cells": 0 if sweep is None else len(sweep.cells()),
    }


def took(job: Job) -> str:
    """How long it was made: 7.3 s, 12:30."""
    if job.started is None or job.finished is None:
        return ""
    seconds = max(0.0, job.finished - job.started)
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def looks(studio: Studio, owner: str, posters: list[str], clips: list[str]) -> dict[str, Any]:
    """Pictures as data URLs, and addresses of videos, by the ids of jobs; None where there is none to be had."""
    return {
        "posters": {name: _poster(studio, studio.job(name, owner)) for name in posters[:LOOKS]},
        "clips": {name: _cheap_clip(studio, studio.job(name, owner)) for name in clips[:4]},
    }


def detail(studio: Studio, job: Job, cell: int = WHOLE) -> dict[str, Any]:
    """All that is known of a job, or of one cell of its sweep, and the address of its video."""
    video, recipe, sweep = video_of(studio, job, cell), recipe_of(studio, job, cell), studio.sweep(job)
    told = facts(job, _work(studio, job, cell), video)
    return {
        **item(studio, job),
        "cell": cell,
        "url": address(publish(video)),
        "fps": recipe.timeline.grid.fps,
        "facts": [[strings.FACTS[name], words] for name, words in told.items() if words and name != "task"],
        "recipe": recipe_text(studio, job, cell),
        "one": sweep is None or cell != WHOLE,  # and not all of a sweep, which is no clip
        "chips": [{"label": ", ".join(c.labels), "problem": c.problem} for c in studio.cells(job)],
    }


def recipe_text(studio: Studio, job: Job, cell: int = WHOLE) -> str:
    """The JSON of a job or a cell; paths as seen from the video, since a recipe must not tell where it was made."""
    folder = video_of(studio, job, cell).parent
    return _work(studio, job, cell).with_paths(lambda path: os.path.relpath(path, folder)).with_bare_loras().to_json()


def _work(studio: Studio, job: Job, cell: int) -> Recipe | Sweep:
    sweep = studio.sweep(job)
    return recipe_of(studio, job, cell) if sweep is None or cell != WHOLE else sweep


def facts(job: Job, work: Recipe | Sweep, video: Path) -> dict[str, str]:
    """What is known of a video, in words, by the names of strings.FACTS; of a sweep, what its videos share."""
    recipe = work.recipe if isinstance(work, Sweep) else work
    timeline = recipe.timeline
    varied = {axis.kind for axis in work.axes} if isinstance(work, Sweep) else set()
    found = {
        "task": TASKS[recipe.task].title,
        "prompt": recipe.prompt,
        "negative": recipe.negative_prompt,
        "sweep": _axes(work) if isinstance(work, Sweep) else "",
        "model": recipe.model,
        "size": f"{timeline.width} x {timeline.height}",
        "frames": _length(video, recipe),
        "keyframes": _keyframes(recipe),
        "steps": str(recipe.steps),
        "guidance": f"{recipe.guidance:g}",
        "guidance_2": "" if recipe.guidance_2 is None else f"{recipe.guidance_2:g}",
        "guidance_interval": _interval(recipe),
        "cache": f"{recipe.cache:g}" if recipe.cache else "",
        "seed": str(recipe.seed),
        "schedule": _schedule(recipe),
        "color_match": "yes" if recipe.color_match else "",
        "loras": "; ".join(told_loras(video)) or ", ".join(f"{one.path} at {one.strength:g}" for one in recipe.loras),
        "took": took(job),
        "file": video.name,
    }
    return {name: "" if name in varied else words for name, words in found.items()}


def _interval(recipe: Recipe) -> str:
    low, high = recipe.guidance_interval
    return "" if (low, high) == WHOLE_INTERVAL else f"{high:g} to {low:g}"


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[list[str]]:
    """[name, value of the one, value of the other] of the settings in which two details differ."""
    first, second = dict(one["facts"]), dict(other["facts"])
    first[strings.FACTS["task"]], second[strings.FACTS["task"]] = one["task"], other["task"]
    names = [name for key, name in strings.FACTS.items() if key not in ("file", "took")]
    pairs = ([name, first.get(name, ""), second.get(name, "")] for name in names)
    return [pair for pair in pairs if pair[1] != pair[2]]


def address(path: str) -> str:
    """Where a file of the cache is served, as seen from the root of the page."""
    return f"gradio_api/file={urllib.parse.quote(path)}"


def _poster(studio: Studio, job: Job | None) -> str | None:
    """All of a poster, small. It is the worker's own JPEG, and needs none of the checks of an upload."""
    from PIL import Image

    path = None if job is None else studio.poster(job)
    if path is None:
        return None
    try:
        data = path.read_bytes()
        if len(data) <= SMALL_BYTES:
            return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            picture.thumbnail((POSTER, POSTER))
            return data_url(np.asarray(picture.convert("RGB")))
    except (OSError, ValueError):
        return None


def _cheap_clip(studio: Studio, job: Job | None) -> str | None:
    video = None if job is None else studio.result(job)
    if video is None or video.stat().st_size > CHEAP_BYTES:
        return None
    return address(publish(video))


def _axes(sweep: Sweep) -> str:
    return "; ".join(", ".join(labels) for labels in sweep.labels)


def _length(video: Path, recipe: Recipe) -> str:
    """A result may have more or fewer frames than its timeline."""
    from pusa_app.media import check_clip

    try:
        frames, fps = (info := check_clip(video)).num_frames, info.fps
    except MediaError:
        frames, fps = recipe.timeline.grid.num_frames, recipe.timeline.grid.fps
    return strings.FRAMES_OF.format(frames=frames, fps=fps, seconds=frames / fps)


def _keyframes(recipe: Recipe) -> str:
    """ "slot 0: noise 0; slots 3-4: noise 0.2, 0.4" """
    words = []
    for keyframe in recipe.timeline.keyframes:
        first, last = keyframe.slot, keyframe.slots.stop - 1
        where = f"slot {first}" if first == last else f"slots {first}-{last}"
        noises = list(dict.fromkeys(keyframe.noises)) if len(set(keyframe.noises)) == 1 else keyframe.noises
        words.append(f"{where}: noise {', '.join(f'{noise:g}' for noise in noises)}")
    return "; ".join(words)


def _schedule(recipe: Recipe) -> str:
    schedule = recipe.schedule
    if schedule is None:
        return strings.OWN_SCHEDULE
    return f"shift {schedule.shift:g}" if schedule.kind == "shift" else f"{schedule.kind}, {schedule.threshold:g}"
