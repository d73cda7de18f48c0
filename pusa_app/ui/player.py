"""The right side of the page: what a run looks like while it goes on, and the player when it is done."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio import processing_utils, utils
from gradio.data_classes import FileData
from numpy.typing import NDArray

from pusa_app.errors import UserError
from pusa_app.events import Progress
from pusa_app.jobs import Job
from pusa_app.pace import clock
from pusa_app.studio import Studio
from pusa_app.timeline import Recipe, plan_of
from pusa_app.ui import strings
from pusa_app.ui.drawn import Drawn

PREVIEW_PICTURES = 8  # a preview is a strip of at most that many pictures, see pusa_app.render


class Player(gr.Video):
    """A video in the cache, shown as it is: no probing and no conversion, since the clips are ours."""

    def postprocess(self, value: str | Path | None) -> FileData | None:
        return None if value is None else FileData(path=str(value))

    def get_block_name(self) -> str:
        return "video"


def make_stage() -> Drawn:
    return Drawn(idle(), script=Path(__file__).with_name("stage.js"), elem_id="stage", words=strings.STAGE)


def make_player() -> Player:
    return Player(
        visible=False,
        interactive=False,
        autoplay=True,
        loop=True,
        show_label=False,
        buttons=["download"],
        elem_id="player",
    )


def publish(path: Path) -> str:
    """A copy of a result in the cache, from where the page may be served; the data folder itself is blocked."""
    return processing_utils.save_file_to_cache(path, cache_dir=utils.get_upload_folder())


def publish_bytes(write: Callable[[Path], None], name: str) -> str:
    """A new file in the cache: `write` gets a path that ends like `name` and writes it; the path in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return publish(path)


def is_uploaded(path: str) -> bool:
    """Whether a path is in the cache. A visitor's program can send any path, and must not learn what is behind it."""
    return utils.is_in_or_equal(path, utils.get_upload_folder())


@lru_cache(maxsize=512)
def picture_of(path: Path, side: int) -> str | None:
    """A small JPEG of a picture that never changes, as a data URL; None when it cannot be read."""
    from pusa_app.errors import MediaError
    from pusa_app.media import load_image

    try:
        return data_url(load_image(path, side, side))
    except MediaError:
        return None


def data_url(pixels: NDArray[np.uint8]) -> str:
    """uint8 (height, width, 3) as a JPEG in a data URL, which needs no file in a cache."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def idle() -> dict[str, Any]:
    return {"state": "idle", "title": strings.IDLE_TITLE, "detail": strings.IDLE_DETAIL}


def stage_value(studio: Studio, job: Job) -> dict[str, Any]:
    """What the stage shows of a job that is not done."""
    if job.state == "failed":
        return {"state": "failed", "title": strings.FAILED_TITLE, "detail": job.message}
    if job.state == "interrupted":
        return {"state": "failed", "title": strings.INTERRUPTED_TITLE, "detail": job.message}
    if job.state == "cancelled":
        detail = strings.CANCELLED_SWEEP if studio.made(job)[0] else strings.CANCELLED_DETAIL
        return {"state": "idle", "title": strings.CANCELLED_TITLE, "detail": detail}
    if job.state == "queued":
        from pusa_app.ui.queue import place_words

        return {"state": "waiting", "title": strings.WAITING_TITLE, "detail": place_words(studio, job)}
    return running_value(studio, job) | noise_value(studio, job)


def running_value(studio: Studio, job: Job) -> dict[str, Any]:
    """How far a running job is: step, elapsed, left, memory as words, fraction from 0 to 1, and its latest look."""
    progress, left = studio.progress(job.id)
    preview = studio.preview(job.id)
    value = {
        "state": "running",
        "title": strings.STARTING if progress is None else _phase(progress),
        "step": strings.STARTING if progress is None else _phase(progress),
        "elapsed": clock(time.time() - job.started) if job.started else "",
        "left": "" if left is None else f"about {clock(left)} left",
        "fraction": _fraction(progress),
        "memory": "" if progress is None or not progress.memory else _bytes(progress.memory),
    }
    if preview is not None:
        timeline = studio.recipe(job).timeline
        value["picture"] = f"data:{preview.media_type};base64,{base64.b64encode(preview.image).decode()}"
        value["count"] = min(timeline.grid.num_slots, PREVIEW_PICTURES)
        value["aspect"] = timeline.width / timeline.height
    return value


def noise_value(studio: Studio, job: Job) -> dict[str, Any]:
    """The noise that each slot has at this step, and which slots hold a keyframe; {} while there is none.

    of: the keyframes of the timeline that runs, so that the editor knows whether it is the one that it shows.
    """
    noise = studio.noise_now(job)
    if noise is None:
        return {}
    progress, _ = studio.progress(job.id)
    part, timeline = 0 if progress is None else progress.part, studio.recipe(job).timeline
    kept = _kept_slots(job.recipe, part) if studio.sweep(job) is None else ()
    return {
        "noise": [round(level, 3) for level in noise],
        "kept": [slot for slot in kept if slot < len(noise)],
        "of": [[k.slot, *k.noises] for k in sorted(timeline.keyframes, key=lambda k: k.slot)],
    }


@lru_cache(maxsize=64)
def _kept_slots(recipe: str, part: int) -> tuple[int, ...]:
    """Slots of a part of a run that hold a keyframe."""
    try:
        timeline = plan_of(Recipe.from_json(recipe)).parts[part]
    except (UserError, IndexError):
        return ()
    return tuple(slot for keyframe in timeline.keyframes for slot in keyframe.slots)


def _bytes(count: int) -> str:
    """Memory as people read it: 640 MB, 3.2 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _phase(progress: Progress) -> str:
    words = strings.PHASES[progress.phase].format(step=progress.step, steps=progress.steps)
    if progress.parts == 1:
        return words
    return f"{strings.PART.format(part=progress.part + 1, parts=progress.parts)}: {words}"


def _fraction(progress: Progress | None) -> float:
    """How much of a run is done; the sampling is most of it."""
    if progress is None or not progress.steps:
        return 0.0
    done = progress.step / progress.steps
    within = {"sampling": 0.9 * done, "decoding": 0.9 + 0.08 * done, "writing": 0.98}.get(progress.phase, 0.0)
    return (progress.part + within) / progress.parts


def caption(studio: Studio, job: Job, cell: int = -1) -> str:
    """Two lines under the player, as HTML: of a job, or of one cell of its sweep."""
    recipe, sweep = studio.recipe(job), studio.sweep(job)
    took = "" if job.started is None or job.finished is None else f"{job.finished - job.started:.1f} s to make"
    video, facts = studio.result(job), [f"{recipe.steps} steps", f"seed {recipe.seed}"]
    if sweep is not None and cell >= 0:
        chosen = sweep.cells()[cell]
        recipe, video = chosen.recipe, studio.cells(job)[cell].path
        facts = [*chosen.labels, f"{recipe.steps} steps", f"seed {recipe.seed}"]
    elif sweep is not None:
        facts = [f"{len(sweep.cells())} videos"]
    facts = [_length(video), *dict.fromkeys(facts), recipe.model, took if cell < 0 else ""]
    # What had to be done for it, such as a second attempt with less memory.
    note = f'<p class="caption-facts">{safe(job.message)}</p>' if job.message else ""
    if video is not None and (told := told_loras(video)):
        note = f'<p class="caption-facts">{safe(strings.CAPTION_LORAS.format(loras="; ".join(told)))}</p>{note}'
    return f'<p class="caption-prompt">{safe(recipe.prompt or "(no prompt)")}</p><p class="caption-facts">' + (
        " <span>·</span> ".join(safe(fact) for fact in facts if fact) + f"{_sheet_link(studio, job)}</p>{note}"
    )


def told_loras(video: Path) -> list[str]:
    """What became of the LoRAs of a video, in words, from the file beside it: "x.safetensors at 1.4: 96 modules"."""
    try:
        data = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
        return [str(words) for words in data["made_with"]["loras"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _sheet_link(studio: Studio, job: Job) -> str:
    """Where the contact sheet of a sweep can be had."""
    sheet = studio.sheet(job)
    if sheet is None:
        return ""
    address = f"gradio_api/file={urllib.parse.quote(publish(sheet))}"
    return f' <span>·</span> <a href="{address}" download>{strings.SWEEP_SHEET}</a>'


def _length(video: Path | None) -> str:
    """How many frames a result has: it may be more or fewer than its timeline."""
    from pusa_app.errors import MediaError
    from pusa_app.media import check_clip

    try:
        return "" if video is None else f"{check_clip(video).num_frames} frames"
    except MediaError:
        return ""


def safe(text: str) -> str:
    """A user's text inside HTML: no markup, and nothing that Gradio's templates would run."""
    return "".join(c if c.isalnum() or c in " .,;:-_()/" else f"&#{ord(c)};" for c in text)
