"""The page: its parts, and what happens between them.

A run never lives in an event: Generate hands a recipe to the studio and returns, and a timer asks how it goes. So a
run outlives a reload and a closed tab.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.jobs import Job
from pusa_app.presets import delete_preset, find_preset, preset_from, save_preset
from pusa_app.studio import Studio, card_of, cards, default_card
from pusa_app.timeline import get_task
from pusa_app.ui import api, strings
from pusa_app.ui.choices import NAMES, Choices
from pusa_app.ui.drawn import Drawn
from pusa_app.ui.form import Form, new_seed, verdicts
from pusa_app.ui.gallery import folder_of
from pusa_app.ui.placing import continued, placed, with_clip, with_frame
from pusa_app.ui.player import caption, idle, make_player, make_stage, picture_of, publish, safe, stage_value
from pusa_app.ui.sweeps import cells_value, make_cells, sweep_of
from pusa_app.ui.visitors import WHOLE, gone, is_mark, job_of, number, owner_of, recipe_of, told_to_user, video_of

HERE = Path(__file__).parent
POLL_SECONDS = 0.4
HISTORY = 24
LIBRARY = 12  # of them that the timeline offers as clips
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
POLLING: dict[str, Any] = {**QUIET, "concurrency_limit": None}


def build(studio: Studio) -> gr.Blocks:
    """The whole page for a studio; the caller launches it."""
    age = studio.settings.cache_seconds
    with gr.Blocks(title=strings.NAME, analytics_enabled=False, fill_width=True, delete_cache=(3600, age)) as page:
        gr.HTML(_top_bar(), js_on_load=(HERE / "top_bar.js").read_text("utf-8"), elem_id="top", apply_default_css=False)
        with gr.Tabs(elem_id="pages"):
            with gr.Tab("Create", elem_id="page-create"):
                create = _Create(studio)
            with gr.Tab("Models", elem_id="page-models"):
                gr.HTML(_models())
            with gr.Tab("Help", elem_id="page-help"):
                gr.Markdown(strings.HELP)
        create.wire(page)
        api.add(studio)
    # Polling must not queue behind other polls; runs are limited by the worker and not by the page.
    page.queue(max_size=200, default_concurrency_limit=8)
    return page


class _Create:
    """The page Create: form, stage and player, timeline, history."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.owner = gr.BrowserState("", storage_key="pusa-owner", secret=studio.secret())
        self.job = gr.State("")
        self.cell = gr.State(WHOLE)
        self.timer = gr.Timer(POLL_SECONDS, active=False)
        self.form = Form(studio)
        self.form.build_tabs()
        with gr.Row(elem_id="create", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_id="form"):
                self.form.build()
            with gr.Column(scale=7, min_width=320, elem_id="output"):
                self.stage = make_stage()
                self.player = make_player()
                self.cells = make_cells()
                with gr.Row(elem_id="under", equal_height=True):
                    self.caption = gr.HTML("", elem_id="caption", visible=False)
                    self.go_on = {
                        "extend": gr.Button(strings.EXTEND, size="sm", visible=False, elem_id="extend", min_width=80),
                        "loop": gr.Button(strings.LOOP, size="sm", visible=False, elem_id="loop", min_width=70),
                    }
                    self.reuse = gr.Button(strings.REUSE, size="sm", visible=False, elem_id="reuse", min_width=150)
                    self.cancel = gr.Button(strings.CANCEL, size="sm", visible=False, elem_id="cancel", min_width=100)
        self.form.build_timeline()
        with gr.Column(visible=False, elem_id="visit") as self.visit:
            gr.HTML(f"<h2>{strings.HISTORY}</h2>", elem_id="visit-title")
            self.history = Drawn([], script=HERE / "history.js", elem_id="history")
        self.view = [
            self.job,
            self.cell,
            self.timer,
            self.stage,
            self.player,
            self.cells,
            self.caption,
            *self.go_on.values(),
            self.reuse,
            self.cancel,
            self.visit,
            self.history,
            self.form.timeline,
        ]

    def wire(self, page: gr.Blocks) -> None:
        form = self.form
        form.wire()
        run: dict[str, Any] = {
            "fn": self._generate,
            "inputs": [self.owner, form.random, *form.inputs],
            "outputs": [form.seed, form.look, *form.said[1:], *self.view],
            "validator": lambda owner, random, *values: [gr.validate(True, "")] * 2 + verdicts(values),
            **QUIET,
        }
        form.generate.click(**run)
        form.prompt.submit(**run)
        form.sweep.run.click(
            **run
            | {
                "fn": self._sweep,
                "inputs": [*run["inputs"], *form.sweep.inputs],
                "validator": lambda owner, random, *values: (
                    [gr.validate(True, "")] * 2
                    + verdicts(values[: len(NAMES)])
                    + [gr.validate(True, "")] * len(form.sweep.inputs)
                ),
            }
        )
        self.cells.select(self._choose_cell, [self.owner, self.job], self.view, **QUIET)
        self._wire_gallery(run)
        editor = form.timeline
        taken = {"inputs": [self.owner, self.job, self.cell, *form.inputs], "outputs": editor, **QUIET}
        editor.take(self._take_frame, **taken)
        editor.library_pick(self._take_clip, **taken)
        self.timer.tick(self._poll, [self.owner, self.job], self.view, trigger_mode="once", **POLLING)
        self.cancel.click(self._cancel, [self.owner, self.job], self.view, **QUIET)
        self.history.select(self._choose, self.owner, self.view, **QUIET)
        everything = form.everything
        self.reuse.click(self._reuse, [self.owner, self.job, self.cell], everything, **QUIET)
        for task, button in self.go_on.items():
            button.click(self._going_on(task), [self.owner, self.job, self.cell, form.model], everything, **QUIET)
        page.load(self._arrive, self.owner, [self.owner, form.gallery, *self.view], **QUIET)

    def _wire_gallery(self, run: dict[str, Any]) -> None:
        form = self.form
        everything = form.everything
        form.gallery.select(self._try_preset, [self.owner, form.model], everything, **QUIET).success(**run)
        form.gallery.apply(self._use_preset, [self.owner, *form.inputs], everything, **QUIET)
        form.gallery.delete(self._delete_preset, self.owner, form.gallery, **QUIET)
        form.gallery.submit(self._save_preset, [self.owner, *form.inputs], form.gallery, **QUIET)

    # --- events ------------------------------------------------------------------------------------------------------

    def _arrive(self, mark: str, request: gr.Request) -> list[Any]:
        """A visitor came, or came back: take up the run that goes on, else the last video."""
        mark = mark if is_mark(mark) else secrets.token_hex(16)
        owner = owner_of(mark, request)
        # Whoever opens the page is about to need a model: load it while he writes.
        self._studio.warm(default_card().id)
        jobs = self._studio.jobs(owner)
        going = next((job for job in reversed(jobs) if not job.ended), None)
        latest = going or next((job for job in reversed(jobs) if job.state == "done"), None)
        return [mark, self.form.gallery_of(folder_of(self._studio, owner)), *self._show(latest, owner)]

    def _generate(self, mark: str, random: bool, request: gr.Request, *values: Any) -> list[Any]:
        owner = owner_of(mark, request)
        if random:
            values = tuple(new_seed() if name == "seed" else v for name, v in _named(values))
        return self._run(Choices(*values), owner, lambda choices: self._studio.submit(choices.recipe(), owner))

    def _run(self, choices: Choices, owner: str, submit: Callable[[Choices], Job]) -> list[Any]:
        """What a button that starts a run changes: the seed, what is said of the form, and the view."""
        with told_to_user():
            if refused := self.form.refuse(choices):
                look, editor, *notes = refused
                return [gr.skip(), look, *notes, *(gr.skip() for _ in self.view[:-1]), editor]
            job = submit(choices)
        notes = [gr.skip()] * (len(self.form.said) - 1)
        return [choices.seed, {}, *notes, *self._show(job, owner)]

    def _sweep(self, mark: str, random: bool, request: gr.Request, *values: Any) -> list[Any]:
        owner, fields = owner_of(mark, request), values[len(NAMES) :]
        folder = folder_of(self._studio, owner)

        def submit(choices: Choices) -> Job:
            return self._studio.submit_sweep(sweep_of(choices.recipe(), choices.card, folder, fields), owner)

        return self._run(Choices(*values[: len(NAMES)]), owner, submit)

    def _choose_cell(self, mark: str, job_id: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """One cell of a sweep comes into the player, or the grid of all."""
        job, cell = self._mine(mark, job_id, request), event.cell
        if not isinstance(cell, int) or not WHOLE <= cell < len(self._studio.cells(job)):
            raise gone()
        video_of(self._studio, job, cell)
        return self._show(job, owner_of(mark, request), cell)

    def _poll(self, mark: str, job_id: str, request: gr.Request) -> list[Any]:
        owner = owner_of(mark, request)
        job = self._studio.job(job_id, owner)
        if job is not None and not job.ended:
            # Nothing but the stage changes while a run goes on.
            return [gr.skip() if part is not self.stage else stage_value(self._studio, job) for part in self.view]
        return self._show(job, owner)

    def _try_preset(self, mark: str, model: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        with told_to_user():
            preset = find_preset(str(event.name), folder_of(self._studio, owner_of(mark, request)))
            return self.form.everything_of(preset.example(card_of(model)))

    def _use_preset(self, mark: str, request: gr.Request, event: gr.EventData, *values: Any) -> list[Any]:
        """The preset with the files, words and seed that the form holds."""
        with told_to_user():
            preset = find_preset(str(event.name), folder_of(self._studio, owner_of(mark, request)))
            return self.form.everything_of(Choices(*values).with_preset(preset))

    def _save_preset(self, mark: str, request: gr.Request, event: gr.EventData, *values: Any) -> Any:
        folder, choices = folder_of(self._studio, owner_of(mark, request)), Choices(*values)
        with told_to_user():
            recipe = choices.recipe()
            get_task(recipe.task).plan(recipe.timeline, recipe.options)
            save_preset(folder, preset_from(recipe, choices.card, str(event.title), str(event.when)))
        gr.Info(strings.SAVED, duration=3)
        return self.form.gallery_of(folder)

    def _delete_preset(self, mark: str, request: gr.Request, event: gr.EventData) -> Any:
        folder = folder_of(self._studio, owner_of(mark, request))
        with told_to_user():
            delete_preset(folder, str(event.name))
        return self.form.gallery_of(folder)

    def _cancel(self, mark: str, job_id: str, request: gr.Request) -> list[Any]:
        owner = owner_of(mark, request)
        self._studio.cancel(job_id, owner)
        job = self._studio.job(job_id, owner)
        if job is not None and not job.ended:
            stopping = stage_value(self._studio, job) | {"step": "Stopping", "left": ""}
            return [gr.skip() if part is not self.stage else stopping for part in self.view]
        return self._show(job, owner)

    def _choose(self, mark: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        owner = owner_of(mark, request)
        job = self._studio.job(str(event.job), owner)
        if job is None:
            raise gone()
        return self._show(job, owner)

    def _reuse(self, mark: str, job_id: str, cell: int, request: gr.Request) -> list[Any]:
        with told_to_user():
            return self.form.everything_of(recipe_of(self._studio, self._mine(mark, job_id, request), cell))

    def _going_on(self, task: str) -> Callable[..., list[Any]]:
        """The clip in the player becomes the clip of another task, with the same words."""

        def go_on(mark: str, job_id: str, cell: int, model: str, request: gr.Request) -> list[Any]:
            job = self._mine(mark, job_id, request)
            with told_to_user():
                recipe, video = recipe_of(self._studio, job, cell), video_of(self._studio, job, cell)
                return self.form.everything_of(continued(recipe, task, video, card_of(model)))

        return go_on

    def _mine(self, mark: str, job_id: str, request: gr.Request) -> Job:
        return job_of(self._studio, job_id, owner_of(mark, request))

    def _take_frame(
        self, mark: str, job_id: str, cell: int, request: gr.Request, event: gr.EventData, *values: Any
    ) -> dict[str, Any]:
        """The frame on which the player stands becomes a keyframe."""
        job = self._mine(mark, job_id, request)
        if cell == WHOLE and self._studio.sweep(job) is not None:
            return gr.update(notice=strings.SWEEP_CHOOSE)
        video = video_of(self._studio, job, cell)
        slot, seconds = number(event.slot), number(event.seconds)
        return placed(values, lambda timeline: with_frame(timeline, int(slot), video, seconds))

    def _take_clip(
        self, mark: str, job_id: str, cell: int, request: gr.Request, event: gr.EventData, *values: Any
    ) -> dict[str, Any]:
        """A clip made before is placed on the timeline."""
        video = Path(publish(video_of(self._studio, self._mine(mark, str(event.id), request))))
        slot = number(event.slot)
        return placed(values, lambda timeline: with_clip(timeline, int(slot), video))

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _show(self, job: Job | None, owner: str, cell: int = WHOLE) -> list[Any]:
        """Updates for `view`: one job, or a cell of it, on the stage or in the player, all of the owner's below."""
        video = None if job is None else self._studio.result(job)
        cells = self._studio.cells(job) if job is not None and video is not None else []
        if video is not None and cell != WHOLE:
            video = cells[cell].path
        going = job is not None and not job.ended
        one = video is not None and not (cells and cell == WHOLE)  # and not all of a sweep, which is no clip
        words = "" if job is None or video is None else caption(self._studio, job, cell)
        history = self._history(owner, job)
        return [
            "" if job is None else job.id,
            cell,
            gr.update(active=going),
            gr.update(
                value=idle() if job is None or video is not None else stage_value(self._studio, job),
                visible=video is None,
            ),
            gr.update(value=None if video is None else publish(video), visible=video is not None),
            gr.update(value=cells_value(self._studio, job, cell) if cells else {}, visible=bool(cells)),
            gr.update(value=words, visible=video is not None),
            *(gr.update(visible=one) for _ in self.go_on),
            gr.update(visible=job is not None and job.ended),
            gr.update(visible=going),
            gr.update(visible=bool(history)),
            history,
            gr.update(library=[item for item in history if item["clip"]][:LIBRARY]),
        ]

    def _history(self, owner: str, shown: Job | None) -> list[dict[str, Any]]:
        items = []
        for job in reversed(self._studio.jobs(owner)[-HISTORY:]):
            recipe, swept = self._studio.recipe(job), self._studio.sweep(job) is not None
            poster = self._studio.poster(job)
            title = recipe.prompt or get_task(recipe.task).title
            items.append(
                {
                    "id": job.id,
                    "title": f"{strings.SWEEP}: {title}" if swept else title,
                    "note": strings.STATES.get(job.state, ""),
                    "picture": None if poster is None else picture_of(poster, side=160),
                    "shown": shown is not None and job.id == shown.id,
                    "clip": job.state == "done" and not swept,
                }
            )
        return items


def _named(values: tuple[Any, ...]) -> list[tuple[str, Any]]:
    return list(zip(NAMES, values, strict=True))


def _top_bar() -> str:
    return (
        f'<div class="top-bar"><span class="top-name">{strings.NAME}</span>'
        f'<button type="button" class="top-theme" title="{strings.THEME}" aria-label="{strings.THEME}">'
        '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><circle cx="10" cy="10" r="7" fill="none" '
        'stroke="currentColor" stroke-width="1.6"/><path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor"/></svg>'
        "</button></div>"
    )


def _models() -> str:
    rows = []
    for card in cards():
        spec = card.spec
        there = card.folder is not None
        rows.append(
            f'<li class="model"><div class="model-name">{safe(card.title)} <code>{safe(card.id)}</code>'
            f'<span class="model-state" data-ready="{str(there).lower()}">'
            f"{strings.READY if there else strings.ABSENT}</span></div>"
            f"<p>{safe(card.summary)}</p><p class='model-facts'>{spec.width} x {spec.height} pixels, "
            f"{spec.lengths()[0]} to {spec.lengths()[-1]} frames at {spec.fps:g} a second, licence {safe(card.licence)}"
            "</p></li>"
        )
    return f'<p class="lead">{strings.MODELS_INTRO}</p><ul class="models">{"".join(rows)}</ul>'
