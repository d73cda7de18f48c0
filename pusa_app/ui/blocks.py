"""The page: its parts, and what happens between them.

A run never lives in an event: Generate hands a recipe to the studio and returns, and a clock asks how it goes. So a
run outlives a reload and a closed tab, and the form is free at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import RecipeError, UserError
from pusa_app.jobs import Job
from pusa_app.presets import delete_preset, find_preset, preset_from, save_preset
from pusa_app.studio import Studio, card_of, default_card
from pusa_app.timeline import get_task
from pusa_app.ui import api, strings
from pusa_app.ui.choices import NAMES, Choices
from pusa_app.ui.draft import Drafts
from pusa_app.ui.drawn import Drawn
from pusa_app.ui.fields import new_seed
from pusa_app.ui.form import Form
from pusa_app.ui.library import Library
from pusa_app.ui.models import Models
from pusa_app.ui.placing import continued, frame_of, placed
from pusa_app.ui.player import caption, idle, make_player, make_stage, picture_of, publish, safe, stage_value
from pusa_app.ui.queue import (
    Queue,
    banner_value,
    line_value,
    live_value,
    make_banner,
    make_line,
    name_of,
    queue_value,
    title_of,
    without_known,
)
from pusa_app.ui.sweeps import cells_value, make_cells, sweep_of
from pusa_app.ui.visitors import WHOLE, gone, is_mark, job_of, number, owner_of, recipe_of, told_to_user, video_of

HERE = Path(__file__).parent
HISTORY = 24
MOST_ORDERED = 1000  # ids in one wish for another order
LIBRARY = 12  # of them that the timeline offers as clips
BELL = (
    '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true" fill="none" stroke="currentColor" '
    'stroke-width="1.6" stroke-linejoin="round"><path d="M4 14.5c1.3-1.2 1.6-2.6 1.6-5A4.4 4.4 0 0 1 10 5a4.4 4.4 0 0 '
    '1 4.4 4.5c0 2.4.3 3.8 1.6 5z"/><path d="M10 5V3"/><path class="top-clapper" d="M8.3 16.6a1.8 1.8 0 0 0 3.4 0"/>'
    '<path class="top-strike" d="M3.5 3.5l13 13"/></svg>'
)
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Polling needs no queue: one request, one answer. The clock takes care that questions do not pile up, and asks again
# when an answer is lost, where Gradio would wait for it for ever.
POLLING: dict[str, Any] = {**QUIET, "concurrency_limit": None, "queue": False, "trigger_mode": "multiple"}


def build(studio: Studio) -> gr.Blocks:
    """The whole page for a studio; the caller launches it."""
    age = studio.settings.cache_seconds
    with gr.Blocks(title=strings.NAME, analytics_enabled=False, fill_width=True, delete_cache=(3600, age)) as page:
        gr.HTML(_top_bar(), js_on_load=(HERE / "top_bar.js").read_text("utf-8"), elem_id="top", apply_default_css=False)
        library, models = Library(studio), Models(studio)
        library.build_drop()
        with gr.Tabs(elem_id="pages") as pages:
            with gr.Tab("Create", elem_id="page-create", id="create"):
                models.build_guide()
                create = _Create(studio)
            with gr.Tab(strings.QUEUE_TITLE, elem_id="page-queue", id="queue"):
                queue = Queue()
                queue.build()
            with gr.Tab(strings.LIBRARY_TITLE, elem_id="page-library", id="library"):
                library.build()
            with gr.Tab("Models", elem_id="page-models", id="models"):
                models.build()
            with gr.Tab("Help", elem_id="page-help"):
                gr.Markdown(strings.HELP)
        create.wire(page, pages, queue)
        library.wire(create.owner, create.form, pages)
        models.wire(page, pages, create.form)
        api.add(studio)
    # Polling must not queue behind other polls; runs are limited by the worker and not by the page.
    page.queue(max_size=200, default_concurrency_limit=8)
    return page


class _Create:
    """The page Create: form, stage and player, timeline, history."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._held: dict[str, tuple[str, str]] = {}  # open page -> the waiting job that it edits, and whose that is
        self.owner = gr.BrowserState("", storage_key="pusa-owner", secret=studio.secret())
        self.job = gr.State("")
        self.cell = gr.State(WHOLE)
        # The page itself holds what it shows and was told: answers may cross on the way or be lost, and what the
        # program believed to be there would never be sent again.
        self.shown = Drawn([], script=(), elem_id="shown")  # job, whether it is seen as ended, cell
        self.told = Drawn({}, script=HERE / "told.js", elem_id="told")  # marks of what was sent, see `_news`
        self.added = gr.State([])  # ids of what was queued last
        self.editing = gr.State("")  # the waiting job that the form holds
        self.live = Drawn({}, script=HERE / "live.js", elem_id="live", words=strings.LIVE)
        self.banner = make_banner("resume-create")
        self.form = Form(studio)
        self.form.build_tabs()
        with gr.Row(elem_id="create", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_id="form"):
                with gr.Row(visible=False, elem_id="editing") as self.edited:
                    self.edited_words = gr.HTML("")
                    self.stop_editing = gr.Button(
                        strings.STOP_EDITING, size="sm", elem_id="stop-editing", min_width=100
                    )
                self.form.build()
                self.line = make_line()
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
        self.drafts = Drafts(self.form, studio.settings)
        with gr.Column(visible=False, elem_id="visit") as self.visit:
            gr.HTML(f"<h2>{strings.HISTORY}</h2>", elem_id="visit-title")
            self.history = Drawn([], script=HERE / "history.js", elem_id="history")
        self.view = [
            self.job,
            self.cell,
            self.shown,
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

    def wire(self, page: gr.Blocks, pages: gr.Tabs, queue: Queue) -> None:
        form = self.form
        form.wire()
        self.drafts.wire()
        self.news = [queue.list, queue.banner, self.banner, self.line, self.live, self.told]
        edited = [self.editing, self.edited, self.edited_words]
        self.edit_view = [*edited, form.generate, form.count, form.embed, *form.sweep.parts]
        asked = [self.owner, self.job, self.editing, form.random, form.count, form.embed]
        run: dict[str, Any] = {
            "fn": self._generate,
            "inputs": [*asked, *form.inputs],
            "outputs": [form.seed, form.look, *form.said[1:], *self.view, *self.news, self.added, *self.edit_view],
            **QUIET,
        }
        self._starts(form.generate.click(**run))
        with_sweep = {"inputs": [*run["inputs"], *form.sweep.inputs]}
        self._starts(form.prompt.submit(**run | with_sweep | {"fn": self._enter}))
        self._starts(form.sweep.run.click(**run | with_sweep | {"fn": self._sweep}))
        self.cells.select(self._choose_cell, [self.owner, self.job], self.view, **QUIET)
        self._wire_gallery(run)
        editor = form.timeline
        # The editor sends the next when it has the answer, which may be before Gradio has noticed.
        taken: dict[str, Any] = {"outputs": editor, **QUIET, "trigger_mode": "multiple"}
        editor.take(self._take_frame, [self.owner, self.job, self.cell], **taken)
        editor.library_pick(self._take_clip, self.owner, **taken)
        known = [self.owner, self.job, self.cell, self.shown, self.told, self.added]
        self.live.tick(self._poll, known, [*self.view, *self.news], **POLLING)
        self.cancel.click(self._cancel, [self.owner, self.job], [*self.view, *self.news], **QUIET)
        self._wire_queue(pages, queue)
        self.history.select(self._choose, self.owner, self.view, **QUIET)
        everything = form.everything
        self.reuse.click(self._reuse, [self.owner, self.job, self.cell], everything, **QUIET)
        for task, button in self.go_on.items():
            button.click(self._going_on(task), [self.owner, self.job, self.cell, form.model], everything, **QUIET)
        come = page.load(self._arrive, self.owner, [self.owner, form.gallery, *self.view, *self.news], **QUIET)
        self._starts(come)
        page.unload(self._leave)

    def _wire_queue(self, pages: gr.Tabs, queue: Queue) -> None:
        mine, changed = [self.owner, self.job], [*self.view, *self.news]
        # Presses that follow each other quickly all count.
        every: dict[str, Any] = {**QUIET, "trigger_mode": "multiple"}
        for buttons in (queue.list, queue.banner, self.banner):
            self._starts(buttons.act(self._act, mine, changed, **every))
        queue.list.reorder(self._reorder, self.owner, self.news, **every)
        queue.list.show(self._watch, self.owner, [*self.view, pages], **QUIET)
        filled = [*self.form.everything, *self.edit_view, pages, *self.news]
        queue.list.edit(self._edit, [self.owner, self.editing], filled, **QUIET)
        stop = [self.owner, self.editing]
        self._starts(self.stop_editing.click(self._stop_editing, stop, [*self.edit_view, *self.news], **QUIET))
        self.line.show(lambda: gr.update(selected="queue"), None, pages, **QUIET)

    def _wire_gallery(self, run: dict[str, Any]) -> None:
        form = self.form
        everything = form.everything
        example = form.gallery.select(self._try_preset, [self.owner, self.editing, form.model], everything, **QUIET)
        self._starts(example.success(**run))
        form.gallery.apply(self._use_preset, [self.owner, *form.inputs], everything, **QUIET)
        form.gallery.delete(self._delete_preset, self.owner, form.gallery, **QUIET)
        form.gallery.submit(self._save_preset, [self.owner, *form.inputs], form.gallery, **QUIET)

    def _starts(self, event: Any) -> None:
        """Where jobs are made by whoever attends to them: do so after an event that may let one start."""
        if self._studio.inline:
            event.then(self._attend, self.owner, None, **QUIET, trigger_mode="multiple", concurrency_limit=None)

    # --- events ------------------------------------------------------------------------------------------------------

    def _arrive(self, mark: str, request: gr.Request) -> list[Any]:
        """A visitor came, or came back: take up the run that goes on, else the last video."""
        mark = mark if is_mark(mark) else secrets.token_hex(16)
        owner = self._owner(mark, request)
        # Whoever opens the page is about to need a model: load it while he writes.
        self._studio.warm(default_card().id)
        waiting = self._studio.queue(owner)
        moves = [job for job in waiting if job.state == "running" or not self._studio.paused(owner)]
        done = (job for job in self._studio.recent(owner, HISTORY) if job.state == "done")
        latest = next(iter([*moves[:1], *done, *waiting]), None)
        presets = self.form.gallery_of(self._presets(owner))
        return [mark, presets, *self._show(latest, owner), *self._news(owner)]

    def _generate(
        self,
        mark: str,
        job_id: str,
        editing: str,
        random: bool,
        count: float | None,
        embed: bool,
        request: gr.Request,
        *values: Any,
    ) -> list[Any]:
        owner = self._owner(mark, request)
        if editing:
            if self._edits_sweep(editing, owner):  # what the form holds is not what was asked for with it
                raise gr.Error(strings.EDITS_SWEEP, print_exception=False)
            return self._run(
                Choices(*values),
                owner,
                job_id,
                lambda choices: [self._studio.replace(editing, choices.recipe(), owner, embed=bool(embed))],
                self._not_editing(),
            )
        values = _seeded(values) if random else values
        many = 1 if count is None else int(count)
        return self._run(
            Choices(*values),
            owner,
            job_id,
            lambda choices: self._studio.submit_seeds(choices.recipe(), owner, many, embed=bool(embed)),
        )

    def _run(
        self,
        choices: Choices,
        owner: str,
        job_id: str,
        submit: Callable[[Choices], list[Job]],
        edit_view: list[Any] | None = None,
    ) -> list[Any]:
        """What a button that starts a run changes: the seed, what is said of the form, the view, the queue."""
        with told_to_user():
            if refused := self.form.refuse(choices):
                look, editor, *notes = refused
                rest = (gr.skip() for _ in [*self.news, self.added, *self.edit_view])
                return [gr.skip(), look, *notes, *(gr.skip() for _ in self.view[:-1]), editor, *rest]
            jobs = submit(choices)
        # Whoever watches a run goes on watching it; what he asked for besides is told beside the button.
        seen = self._studio.job(job_id, owner)
        shown = seen if seen is not None and seen.state == "running" else jobs[0]
        added = [] if shown is jobs[0] and len(jobs) == 1 else [job.id for job in jobs]
        return [
            choices.seed,
            {},
            *self.form.content(),
            *self._show(shown, owner),
            *self._news(owner, added=added),
            added,
            *(edit_view or [gr.skip() for _ in self.edit_view]),
        ]

    def _sweep(
        self,
        mark: str,
        job_id: str,
        editing: str,
        random: bool,
        count: float | None,
        embed: bool,
        request: gr.Request,
        *values: Any,
    ) -> list[Any]:
        owner, fields, values = self._owner(mark, request), values[len(NAMES) :], values[: len(NAMES)]
        if editing and not self._edits_sweep(editing, owner):
            raise gr.Error(strings.EDITS_VIDEO, print_exception=False)
        values = _seeded(values) if random and not editing else values
        folder = self._presets(owner)

        def submit(choices: Choices) -> list[Job]:
            sweep = sweep_of(choices.recipe(), choices.card, folder, fields)
            if editing:
                return [self._studio.replace(editing, sweep, owner, embed=bool(embed))]
            return [self._studio.submit_sweep(sweep, owner, embed=bool(embed))]

        return self._run(Choices(*values), owner, job_id, submit, self._not_editing() if editing else None)

    def _enter(
        self,
        mark: str,
        job_id: str,
        editing: str,
        random: bool,
        count: float | None,
        embed: bool,
        request: gr.Request,
        *values: Any,
    ) -> list[Any]:
        """Enter in the prompt does what the button of the form does that is there."""
        given = mark, job_id, editing, random, count, embed, request
        if editing and self._edits_sweep(editing, self._owner(mark, request)):
            return self._sweep(*given, *values)
        return self._generate(*given, *values[: len(NAMES)])

    def _edits_sweep(self, editing: str, owner: str) -> bool:
        """Whether what is edited is a sweep; that it is there no more is said when it is to be saved."""
        job = self._studio.job(editing, owner)
        return job is not None and self._studio.sweep(job) is not None

    def _choose_cell(self, mark: str, job_id: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """One cell of a sweep comes into the player, or the grid of all."""
        job, cell = self._mine(mark, job_id, request), event.cell
        if not isinstance(cell, int) or not WHOLE <= cell < len(self._studio.cells(job)):
            raise gone()
        video_of(self._studio, job, cell)
        return self._show(job, self._owner(mark, request), cell)

    def _poll(
        self,
        mark: str,
        job_id: str,
        cell: int,
        shown: Any,
        told: Any,
        added: list[str],
        request: gr.Request,
    ) -> list[Any]:
        """What changed since the page was told last, and nothing else."""
        owner = self._owner(mark, request)
        try:
            return self._changes(job_id, cell, shown, told if isinstance(told, dict) else {}, added, owner)
        except UserError:
            # The disk may refuse for a moment. Whoever presses something is told; the clock asks again.
            return [gr.skip() for _ in [*self.view, *self.news]]

    def _changes(
        self, job_id: str, cell: int, shown: Any, told: dict[str, Any], added: list[str], owner: str
    ) -> list[Any]:
        job = self._studio.job(job_id, owner)
        if job is None:
            # Nothing is seen here yet: then what another page, or the command line, asked for is.
            job, cell = next((one for one in self._studio.queue(owner) if one.state == "running"), None), WHOLE
        if job is not None and shown != [job.id, job.ended, cell]:
            view = self._show(job, owner, cell)
            # What is seen is chosen by who presses something; an answer of the clock may come after that.
            view[:2] = [gr.skip() if job.id == job_id else job.id, gr.skip() if view[1] == cell else view[1]]
            return [*view, *self._news(owner, told, added)]
        updates = {part: gr.skip() for part in self.view}
        news = self._news(owner, told, added)
        told = news[-1]
        going = {} if job is None or job.ended else stage_value(self._studio, job)
        if job is not None and going and told.get("stage") != (mark_of := _mark([job.id, going])):
            # Two runs may look the same, and the stage forgets the picture of the first when the second comes.
            same = told.get("look") == (look := _mark([job.id, going.get("picture")]))
            updates[self.stage] = {**going, "picture": None, "same": True} if same else going
            told["stage"], told["look"] = mark_of, look
            live = {name: going[name] for name in ("noise", "of") if name in going}
            if told.get("noise") != (mark_of := _mark(live)):
                updates[self.form.timeline], told["noise"] = gr.update(live=live), mark_of
        recent = self._studio.recent(owner, HISTORY)
        if told.get("recent") != (mark_of := _mark([job_id, *(f"{one.id}{one.state}" for one in recent)])):
            updates |= dict(zip(self.view[-3:], self._strip(owner, job), strict=True))
            told["recent"] = mark_of
        return [*updates.values(), *news]

    def _try_preset(self, mark: str, editing: str, model: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        if editing:  # an example is a new video
            sweep = self._edits_sweep(editing, self._owner(mark, request))
            raise gr.Error(strings.EDITS_SWEEP if sweep else strings.EDITS_VIDEO, print_exception=False)
        with told_to_user():
            preset = find_preset(str(event.name), self._presets(self._owner(mark, request)))
            return self.form.everything_of(preset.example(card_of(model)))

    def _use_preset(self, mark: str, request: gr.Request, event: gr.EventData, *values: Any) -> list[Any]:
        """The preset with the files, words and seed that the form holds."""
        with told_to_user():
            preset = find_preset(str(event.name), self._presets(self._owner(mark, request)))
            return self.form.everything_of(Choices(*values).with_preset(preset))

    def _save_preset(self, mark: str, request: gr.Request, event: gr.EventData, *values: Any) -> Any:
        folder, choices = self._presets(self._owner(mark, request)), Choices(*values)
        with told_to_user():
            recipe = choices.recipe()
            get_task(recipe.task).plan(recipe.timeline, recipe.options)
            save_preset(folder, preset_from(recipe, choices.card, str(event.title), str(event.when)))
        gr.Info(strings.SAVED, duration=3)
        return self.form.gallery_of(folder)

    def _delete_preset(self, mark: str, request: gr.Request, event: gr.EventData) -> Any:
        folder = self._presets(self._owner(mark, request))
        with told_to_user():
            delete_preset(folder, str(event.name))
        return self.form.gallery_of(folder)

    def _cancel(self, mark: str, job_id: str, request: gr.Request) -> list[Any]:
        owner = self._owner(mark, request)
        self._studio.cancel(job_id, owner)
        job = self._studio.job(job_id, owner)
        if job is not None and not job.ended:
            stopping = stage_value(self._studio, job) | {"step": strings.STOPPING, "left": ""}
            return [*(gr.skip() if part is not self.stage else stopping for part in self.view), *self._news(owner)]
        return [*self._show(job, owner), *self._news(owner)]

    # --- the queue ---------------------------------------------------------------------------------------------------

    def _act(self, mark: str, job_id: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """A button of the queue was pressed: `verb` says which, `id` on which job."""
        studio, owner = self._studio, self._owner(mark, request)
        verb, named = str(event.verb), str(event.id)
        new: Job | None = None
        with told_to_user():
            if verb in ("retry", "resume", "duplicate"):
                new = getattr(studio, verb)(named, owner)
            elif verb == "resume_all":
                studio.resume_all(owner)
                new = next(iter(studio.queue(owner)), None)
            elif verb == "cancel":
                studio.cancel(named, owner)
            elif verb == "release":
                studio.hold(named, owner, False)
            elif verb == "remove":
                studio.delete([named], owner)
            elif verb in ("pause", "clear"):
                getattr(studio, verb)(owner)
            elif verb == "go_on":
                studio.unpause(owner)
        seen = studio.job(job_id, owner)
        if new is not None and (seen is None or seen.ended):
            return [*self._show(new, owner), *self._news(owner)]
        return [*(gr.skip() for _ in self.view), *self._news(owner)]

    def _reorder(self, mark: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        owner = self._owner(mark, request)
        ids = event.ids if isinstance(event.ids, list) else []
        with told_to_user():
            self._studio.reorder(owner, [str(job_id) for job_id in ids[:MOST_ORDERED]])
        return self._news(owner)

    def _watch(self, mark: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        owner = self._owner(mark, request)
        return [*self._show(job_of(self._studio, event.id, owner), owner), gr.update(selected="create")]

    def _edit(self, mark: str, editing: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """A waiting job comes into the form, and is not started meanwhile."""
        studio, owner = self._studio, self._owner(mark, request)
        job = job_of(studio, event.id, owner)
        with told_to_user():
            if not studio.hold(job.id, owner, True):
                raise RecipeError(strings.NO_LONGER_WAITING)
            if editing and editing != job.id:
                studio.hold(editing, owner, False)
            recipe = studio.recipe(job)
            filled = self.form.everything_of(recipe)
        self._held[str(request.session_hash)] = (job.id, owner)
        sweep, fields = studio.sweep(job), self.form.sweep
        words = safe((strings.EDITING if sweep is None else strings.EDITING_SWEEP).format(title=name_of(recipe)))
        how = "" if sweep is None else f'<p class="hint">{strings.EDITING_SWEEP_HOW}</p>'
        view = [
            job.id,
            gr.update(visible=True),
            f"<p>{words}</p>{how}",
            # One button saves, and none makes something else of what is edited.
            gr.update(value=strings.SAVE_TO_QUEUE, visible=sweep is None),
            gr.update(visible=False),
            job.embed,
            *(fields.hidden() if sweep is None else fields.edited(sweep)),
        ]
        return [*filled, *view, gr.update(selected="create"), *self._news(owner)]

    def _stop_editing(self, mark: str, editing: str, request: gr.Request) -> list[Any]:
        owner = self._owner(mark, request)
        self._held.pop(str(request.session_hash), None)
        with told_to_user():
            self._studio.hold(editing, owner, False)
        return [*self._not_editing(), *self._news(owner)]

    def _not_editing(self) -> list[Any]:
        """Updates for `edit_view` when the form is the visitor's own again."""
        generate = gr.update(value=strings.GENERATE, visible=True)
        rest = [gr.update(visible=True), gr.skip(), *self.form.sweep.plain()]
        return ["", gr.update(visible=False), "", generate, *rest]

    def _attend(self, mark: str, request: gr.Request) -> Iterator[None]:
        """Make the visitor's jobs, for as long as he stays; the clock shows him how it goes."""
        with told_to_user(), contextlib.closing(self._studio.attend(self._owner(mark, request))) as events:  # type: ignore[type-var]
            for _ in events:
                yield None  # where an event whose page was closed ends

    def _leave(self, request: gr.Request) -> None:
        """A page was closed: what it had in its form to edit may be made as it is."""
        job_id, owner = self._held.pop(str(request.session_hash), ("", ""))
        with contextlib.suppress(UserError):
            if job_id:
                self._studio.hold(job_id, owner, False)

    # --- presets and videos ------------------------------------------------------------------------------------------

    def _choose(self, mark: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        owner = self._owner(mark, request)
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
        return job_of(self._studio, job_id, self._owner(mark, request))

    def _take_frame(
        self, mark: str, job_id: str, cell: int, request: gr.Request, event: gr.EventData
    ) -> dict[str, Any]:
        """The frame on which the player stands becomes a keyframe."""

        def frame() -> str:
            job = self._mine(mark, job_id, request)
            if cell == WHOLE and self._studio.sweep(job) is not None:
                raise RecipeError(strings.SWEEP_CHOOSE)
            return frame_of(video_of(self._studio, job, cell), number(event.seconds))

        return placed(frame, int(number(event.slot)), str(event.order))

    def _take_clip(self, mark: str, request: gr.Request, event: gr.EventData) -> dict[str, Any]:
        """A clip made before is placed on the timeline."""

        def clip() -> str:
            return publish(video_of(self._studio, self._mine(mark, str(event.id), request)))

        return placed(clip, int(number(event.slot)), str(event.order))

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _show(self, job: Job | None, owner: str, cell: int = WHOLE) -> list[Any]:
        """Updates for `view`: one job, or a cell of it, on the stage or in the player, all of the owner's below."""
        video = None if job is None else self._studio.result(job)
        # Without its grid a sweep still has what was made of it.
        cells = self._studio.cells(job) if job is not None and job.ended else []
        cells = cells if video is not None or any(one.path for one in cells) else []
        cell = cell if 0 <= cell < len(cells) and cells[cell].path is not None else WHOLE
        if cell != WHOLE:
            video = cells[cell].path
        going = job is not None and not job.ended
        one = video is not None and not (cells and cell == WHOLE)  # and not all of a sweep, which is no clip
        words = "" if job is None or video is None else caption(self._studio, job, cell)
        return [
            "" if job is None else job.id,
            cell,
            ["" if job is None else job.id, not going, cell],
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
            *self._strip(owner, job),
        ]

    def _strip(self, owner: str, shown: Job | None) -> list[Any]:
        """Updates for the last of `view`: the videos of late below, and in the menu of the timeline."""
        history = self._history(owner, shown)
        clips = [item for item in history if item["clip"]][:LIBRARY]
        runs = stage_value(self._studio, shown) if shown is not None and shown.state == "running" else {}
        live = {name: runs[name] for name in ("noise", "of") if name in runs}
        return [gr.update(visible=bool(history)), history, gr.update(library=clips, live=live)]

    def _news(self, owner: str, before: dict[str, Any] | None = None, added: Sequence[str] = ()) -> list[Any]:
        """Updates for `news`: what differs from what was told `before`, or all. added: ids of what was queued last.

        What is told now comes last: marks of the parts, `at`, its name, and `base`, that of what was told before.
        """
        studio, told = self._studio, dict(before or {})
        told["at"], told["base"] = secrets.token_hex(4), told.get("at", "")
        first = studio.job(added[0], owner) if added else None
        count = len(added) if first is not None and first.state == "queued" else 0
        banner = banner_value(studio, owner)
        known = told.get("pictures")
        known = known if isinstance(known, list) else []
        listed, told["pictures"] = without_known(queue_value(studio, owner), known)
        values = {
            "queue": listed,
            "banner": banner,
            "banner here": banner,
            "line": line_value(studio, owner, first, count),
            "live": live_value(studio, owner),
        }
        updates = []
        for name, value in values.items():
            news = told.get(name) != (mark := _mark(value))
            told[name] = mark
            updates.append(value if news else gr.skip())
        return [*updates, told]

    def _history(self, owner: str, shown: Job | None) -> list[dict[str, Any]]:
        items = []
        for job in self._studio.recent(owner, HISTORY):
            poster = self._studio.poster(job)
            items.append(
                {
                    "id": job.id,
                    "title": title_of(job),
                    "note": strings.STATES.get(job.state, ""),
                    "picture": None if poster is None else picture_of(poster, side=160),
                    "shown": shown is not None and job.id == shown.id,
                    "clip": job.state == "done" and self._studio.sweep(job) is None,
                }
            )
        return items

    def _presets(self, owner: str) -> Path:
        return self._studio.settings.presets_dir(owner)

    def _owner(self, mark: Any, request: gr.Request) -> str:
        return owner_of(mark, request, self._studio.settings.shared)


def _mark(value: Any) -> str:
    """A short mark of a value, by which it is known that it was sent already."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()


def _seeded(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of the form with another seed."""
    return tuple(new_seed() if name == "seed" else value for name, value in zip(NAMES, values, strict=True))


def _top_bar() -> str:
    bell = " ".join(f'data-{name}="{words}"' for name, words in strings.BELL.items())
    return (
        f'<div class="top-bar"><span class="top-name">{strings.NAME}</span>'
        '<span class="top-acts">'
        f'<button type="button" class="top-bell" {bell}>'
        f"{BELL}</button>"
        f'<button type="button" class="top-theme" title="{strings.THEME}" aria-label="{strings.THEME}">'
        '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><circle cx="10" cy="10" r="7" fill="none" '
        'stroke="currentColor" stroke-width="1.6"/><path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor"/></svg>'
        "</button></span></div>"
    )
