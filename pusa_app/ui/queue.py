"""The page Queue: what runs, what waits and in which order, what ended without a video."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pusa_app.errors import MediaError, UserError
from pusa_app.expectations import work_of
from pusa_app.jobs import Job
from pusa_app.pace import clock
from pusa_app.studio import Studio, card_of
from pusa_app.timeline import Keyframe, Recipe, Sweep, get_task
from pusa_app.ui import strings
from pusa_app.ui.drawn import DOM, Drawn
from pusa_app.ui.player import data_url, running_value
from pusa_app.ui.sweeps import made_words

HERE = Path(__file__).parent
ENDED = 6  # of those that ended without a video, the latest
LATELY = 24 * 3600  # seconds
THUMB = 96  # pixels


class Queue:
    """The page Queue, in the tab that is open.

    Events of `list`: act ({verb, id}: a button was pressed), reorder ({ids}: of all that wait, in the wanted order),
    edit ({id}), show ({id}: see it on the page Create). Of `banner`: act.
    """

    def build(self) -> None:
        self.banner = make_banner("resume-queue")
        self.list = Drawn({}, script=(DOM, HERE / "queue.js"), elem_id="queue", words=strings.QUEUE)


def make_banner(elem_id: str) -> Drawn:
    """What is asked after a restart; event act ({verb: "resume_all"})."""
    return Drawn({}, script=HERE / "banner.js", elem_id=elem_id, elem_classes="resume-banner", words=strings.BANNER)


def make_line() -> Drawn:
    """One line on the queue beside Generate; event show."""
    return Drawn({}, script=(DOM, HERE / "queue_line.js"), elem_id="queue-line", words=strings.QUEUE)


# --- what is shown ---------------------------------------------------------------------------------------------------


def queue_value(studio: Studio, owner: str, now: float | None = None) -> dict[str, Any]:
    """What the page Queue shows of an owner's jobs.

    jobs: those that run, then those that wait, in order; ended: the latest without a video, newest first; paused: as
    `Studio.paused`; summary: a line of words.
    """
    now = time.time() if now is None else now
    paused = studio.paused(owner)
    expected = studio.expectations()
    jobs = [_row(studio, job, None if paused else expected.get(job.id)) for job in studio.queue(owner)]
    summary = strings.SUMMARY_PAUSED if paused else ", ".join(_counts(jobs))
    return {"jobs": jobs, "ended": _ended(studio, owner, now), "paused": paused, "summary": summary}


def without_known(value: dict[str, Any], known: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A `queue_value` whose pictures are names, those that are not `known` yet beside it; and the names of all.

    Rows change every second, and their pictures hardly ever.
    """
    rows, pictures = [], {}
    for row in [*value["jobs"], *value["ended"]]:
        named = dict(row)
        for part in ("picture", "film"):
            if row.get(part):
                named[part] = hashlib.blake2b(row[part].encode(), digest_size=8).hexdigest()
                pictures[named[part]] = row[part]
        rows.append(named)
    jobs, ended = rows[: len(value["jobs"])], rows[len(value["jobs"]) :]
    news = {name: picture for name, picture in pictures.items() if name not in known}
    return value | {"jobs": jobs, "ended": ended, "pictures": news}, list(pictures)


def _counts(jobs: Sequence[dict[str, Any]]) -> list[str]:
    running = sum(job["state"] == "running" for job in jobs)
    words = ((strings.RUNNING_COUNT, running), (strings.WAITING_COUNT, len(jobs) - running))
    return [text.format(count=count) for text, count in words if count]


def banner_value(studio: Studio, owner: str) -> dict[str, Any]:
    """What waits for a word after the program ended in the midst of it: {} when nothing does."""
    interrupted = studio.interrupted(owner)
    paused = studio.paused(owner) == "restart"
    waiting = [job for job in studio.queue(owner) if job.state == "queued"] if paused else []
    count = len(interrupted) + len(waiting)
    if not count:
        return {}
    cut_off = strings.INTERRUPTED_COUNT[min(len(interrupted), 2)].format(count=len(interrupted))
    waited = strings.WAITED_COUNT[min(len(waiting), 2)].format(count=len(waiting))
    return {
        "words": strings.RESTARTED.format(what=strings.AND.join(part for part in (cut_off, waited) if part)),
        "button": strings.RESUME_ONE if count == 1 else strings.RESUME_ALL.format(count=count),
        # Whoever said "not now" to these is asked again when there are others.
        "of": " ".join(job.id[:8] for job in [*interrupted, *waiting]),
    }


def line_value(studio: Studio, owner: str, added: Job | None = None, count: int = 1) -> dict[str, Any]:
    """The line beside Generate: how many run and wait, and when the last one is done.

    added: what was queued last, the first of `count`, as long as it waits.
    """
    jobs = studio.queue(owner)
    if not jobs:
        return {}
    last = studio.expected(jobs[-1])
    facts = [", ".join(_counts([{"state": job.state} for job in jobs]))]
    if studio.paused(owner):
        facts.append(strings.PAUSED_SHORT)
    elif last is not None:
        facts.append(strings.ALL_DONE.format(clock=clock(last)))
    said = "" if added is None or not count else place_words(studio, added)
    words = strings.ADDED if count == 1 else strings.ADDED_MANY.format(count=count)
    return {"facts": facts, "added": f"{words} {said}" if said else ""}


def place_words(studio: Studio, job: Job) -> str:
    """Where a waiting job stands: "2 videos before this one, ready in about 3:10"."""
    if job.held:
        return strings.HELD
    if studio.paused(job.owner):
        return strings.PAUSED
    ahead, ready = studio.ahead(job), studio.expected(job)
    place = strings.NEXT if not ahead else strings.AHEAD_ONE if ahead == 1 else strings.AHEAD.format(count=ahead)
    return place if ready is None else f"{place.rstrip('.')}, {strings.READY_IN.format(clock=clock(ready))}"


def live_value(studio: Studio, owner: str) -> dict[str, Any]:
    """What the script behind the page knows of all jobs: the badge, the title, and what ended.

    going: [id] of what runs and waits; active: whether that will change by itself; ended: {id: {state, title}} of late;
    version: new whenever anything but progress changed.
    """
    jobs, recent = studio.queue(owner), studio.recent(owner, 12)
    running = [job for job in jobs if job.state == "running"]
    fraction = running_value(studio, running[0]).get("fraction", 0.0) if running else None
    paused = studio.paused(owner)
    return {
        "going": [job.id for job in jobs],
        "active": bool(running) or (bool(jobs) and not paused),
        "fraction": None if fraction is None else round(fraction, 2),
        "ended": {job.id: {"state": job.state, "title": title_of(job)} for job in recent if job.ended},
        "version": " ".join([paused, *(f"{job.id[:8]}{job.state[0]}{int(job.held)}" for job in [*jobs, *recent])]),
    }


def title_of(job: Job) -> str:
    """What a job is called: as `name_of`, and that it is a sweep."""
    work = work_of(job.recipe)
    return f"{strings.SWEEP}: {name_of(work.recipe)}" if isinstance(work, Sweep) else name_of(work)


def name_of(recipe: Recipe) -> str:
    """What a recipe is called: its prompt, else its task."""
    return recipe.prompt or get_task(recipe.task).title


def _row(studio: Studio, job: Job, ready: float | None) -> dict[str, Any]:
    """One line of the list. ready: seconds until it is done, as far as that is known."""
    row = _card(job)
    if job.state == "running":
        value = running_value(studio, job)
        facts = {name: value.get(name, "") for name in ("step", "elapsed", "left", "memory", "fraction")}
        film = {"film": value["picture"], "count": value["count"]} if "picture" in value else {}
        return row | facts | film
    words = strings.HELD if job.held else "" if ready is None else strings.READY_IN.format(clock=clock(ready))
    return row | {"expected": words, "held": job.held}


def _card(job: Job) -> dict[str, Any]:
    """What is told of a job in every state."""
    work = work_of(job.recipe)
    recipe = work.recipe if isinstance(work, Sweep) else work
    task, frames = get_task(recipe.task).title, recipe.timeline.grid.num_frames
    length = strings.SWEEP_COUNT.format(count=work.num_cells) if isinstance(work, Sweep) else f"{frames} frames"
    return {
        "id": job.id,
        "state": job.state,
        "title": title_of(job),
        "task": task,
        "facts": [task, _model(recipe.model), length, f"seed {recipe.seed}"],
        "picture": _first_picture(recipe),
        "editable": job.state == "queued",
    }


def _ended(studio: Studio, owner: str, now: float) -> list[dict[str, Any]]:
    rows = []
    for job in studio.recent(owner, 4 * ENDED):
        without = job.state in ("failed", "cancelled", "interrupted") and job.deleted is None
        if without and now - (job.finished or now) < LATELY:
            step = studio.can_resume(job)
            more = {
                "message": job.message,
                "label": strings.ENDED[job.state],
                "resume": strings.RESUME_FROM.format(step=step) if step else "",
            }
            row = _card(job) | more
            if made := made_words(studio, job):
                whole = strings.SWEEP_COUNT.format(count=studio.made(job)[1])
                facts = [made.rstrip(".") if fact == whole else fact for fact in row["facts"]]
                row |= {"facts": facts, "made": True}
            rows.append(row)
    return rows[:ENDED]


def _model(model: str) -> str:
    try:
        return card_of(model).title
    except UserError:
        return model


def _first_picture(recipe: Recipe) -> str | None:
    """A small look at the first keyframe, as a data URL."""
    keyframes = [k for k in recipe.timeline.keyframes if k.source.kind != "part"]
    if not keyframes:
        return None
    return _thumb(min(keyframes, key=lambda keyframe: keyframe.slot), recipe.timeline.grid.fps)


@lru_cache(maxsize=256)
def _thumb(keyframe: Keyframe, fps: float) -> str | None:
    from pusa_app.media import load_clip, load_image

    source, size = keyframe.source, (THUMB, THUMB)
    try:
        if source.kind == "image":
            return data_url(load_image(source.path, *size))
        # Decoding runs from the beginning of the file, so that a look at its first frame is the cheap one.
        return data_url(load_clip(source.path, *size, fps=fps, num_frames=1)[0])  # type: ignore[union-attr]
    except MediaError:
        return None
