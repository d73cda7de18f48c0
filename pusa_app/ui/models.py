"""The page Models: what there is and what is here, downloads, files of one's own, deleting.

Only whoever sits at the machine of a page that is not shared may change anything: what is downloaded takes his disk.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import ModelError, UserError
from pusa_app.models.catalogue import runs
from pusa_app.models.entry import Entry
from pusa_app.models.home import Home
from pusa_app.models.weights import State, add, ask, removal, remove, size_words, states
from pusa_app.models.weights.downloads import Download, Downloads
from pusa_app.models.weights.token import drop_token, has_token, save_token
from pusa_app.pace import clock
from pusa_app.studio import Studio, cards, default_card
from pusa_app.timeline import TASKS
from pusa_app.ui import guide, strings
from pusa_app.ui.drawn import DOM, DrawnWithEvents
from pusa_app.ui.fields import model_choices
from pusa_app.ui.form import Form
from pusa_app.ui.visitors import is_local, told_to_user

HERE = Path(__file__).parent
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
POLLING: dict[str, Any] = {**QUIET, "concurrency_limit": None, "queue": False, "trigger_mode": "once"}
COUNT = itertools.count(1)  # of questions
MOST = 4096  # characters of a path or a token


class ModelsView(DrawnWithEvents):
    """Value: what `models_value` gives. Events: act ({verb, id}), add ({place, id}), hub ({place}: a LoRA of the hub),
    token ({token}; "" forgets it), tick."""

    EVENTS = [*gr.HTML.EVENTS, "act", "add", "hub", "token", "tick"]  # noqa: RUF012


class Models:
    """The page Models, in the tab that is open, and the guide to it on Create."""

    def __init__(self, studio: Studio) -> None:
        self._settings = studio.settings
        self._home = Home(studio.settings.data_dir)
        self._downloads = Downloads(self._home)
        self._advisor = guide.Advisor(self._home)

    def build_guide(self) -> None:
        self.guide = guide.make_guide()

    def build(self) -> None:
        self.view = ModelsView({}, script=(DOM, HERE / "models.js"), elem_id="models", words=strings.MODELS)

    def wire(self, page: gr.Blocks, pages: gr.Tabs, form: Form) -> None:
        """The form's choice of a model knows what is here too."""
        out = [self.view, self.guide, form.model]
        self._form = form
        page.load(self._arrive, None, out, **QUIET)
        for view in (self.view, self.guide):
            view.tick(self._arrive, None, out, **POLLING)
        chosen = [self.view, self.guide, pages, *form.with_model_outputs]
        self.guide.act(self._guide, form.with_model_inputs, chosen, **QUIET).then(**form.news)
        with_form = [self.view, self.guide, *form.with_model_outputs]
        self.view.act(self._act_and_choose, form.with_model_inputs, with_form, **QUIET).then(**form.news)
        self.view.add(self._add, None, out, **QUIET)
        # Also after a mistake, which leaves everything else as it was: the field waits until then.
        self.view.hub(self._hub, None, out, **QUIET).failure(self._looked, None, self.view, **QUIET)
        self.view.token(self._token, None, out, **QUIET)

    # --- events ------------------------------------------------------------------------------------------------------

    def _arrive(self, request: gr.Request) -> list[Any]:
        return self._all(request)

    def _act(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        verb, model_id = str(event.verb), str(event.id)[:MOST]
        with told_to_user():
            self._check(request)
            if verb == "download":
                self._downloads.start(model_id)
            elif verb == "pause":
                self._downloads.pause(model_id)
            elif verb == "ask":
                return self._all(request, asked=model_id)
            elif verb == "remove":
                self._downloads.forget(model_id)
                gr.Info(_removed(remove(self._home, model_id)), duration=5)
        return self._all(request)

    def _act_and_choose(self, request: gr.Request, event: gr.EventData, chosen: str, *form: Any) -> list[Any]:
        """A button of the page. When the model that the form holds is gone, the form goes back to the usual one."""
        view, card, model = self._act(request, event)
        here = {one.id for one in cards()}
        if chosen in here:
            return [view, card, model, *(gr.skip() for _ in self._form.with_model_outputs[1:])]
        with told_to_user():
            first, *others = self._form.with_model(default_card().id, *form)
        return [view, card, model | first, *others]

    def _guide(self, request: gr.Request, event: gr.EventData, _: str, *form: Any) -> list[Any]:
        """A button of the guide: whoever gets a model sees how far it is where models are. form: what it holds."""
        verb, model_id, there = str(event.verb), str(event.id)[:MOST], gr.update(selected="models")
        unchanged = [gr.skip() for _ in self._form.with_model_outputs]
        if verb == "models":
            return [gr.skip(), gr.skip(), there, *unchanged]
        if verb == "use":
            with told_to_user():
                self._check(request)
                if model_id not in {card.id for card in cards()}:
                    raise ModelError(strings.MODELS_NOT_HERE)
                chosen = self._form.with_model(model_id, *form)
            self._downloads.forget(model_id)
            view, card, model = self._all(request)
            return [view, card, gr.skip(), model | chosen[0], *chosen[1:]]
        view, card, model = self._act(request, event)
        return [view, card, there if verb == "download" else gr.skip(), model, *unchanged[1:]]

    def _add(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        path, model_id = str(event.place).strip().strip("\"'")[:MOST], str(event.id).strip()[:MOST]
        with told_to_user():
            self._check(request)
            if not path:
                raise ModelError(strings.MODELS_NO_PATH)
            try:
                added = add(self._home, Path(path), model_id or None)
            except (OSError, ValueError):  # a path that no file system takes
                raise ModelError(strings.MODELS_BAD_PATH) from None
        gr.Info(strings.MODELS_ADDED.format(id=added), duration=5)
        return self._all(request)

    def _hub(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """A LoRA that is asked for by its repository: looked at, put on the list, downloaded."""
        place = str(event.place).strip()[:MOST]
        with told_to_user():
            self._check(request)
            if not place:
                raise ModelError(strings.MODELS_HUB_NO_NAME)
            self._downloads.drop_lost({state.id for state in states(self._home)})
            entry = ask(self._home, place)
            here = self._home.folder(entry.id) is not None
            if not here:
                self._downloads.start(entry.id)
        words = strings.MODELS_HUB_HERE if here else strings.MODELS_HUB_COMES
        gr.Info(words.format(title=entry.title, summary=entry.summary), duration=8)
        view, *others = self._all(request)
        return [view | {"looked": next(COUNT)}, *others]

    def _looked(self, request: gr.Request) -> dict[str, Any]:
        """The page, told that what was asked of the hub is answered, if not as it should be."""
        return self._all(request)[0] | {"looked": next(COUNT)}

    def _token(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        with told_to_user():
            self._check(request)
            if token := str(event.token)[:MOST]:
                name = save_token(self._home, token)
                gr.Info(strings.MODELS_TOKEN_KEPT.format(name=name), duration=5)
            else:
                drop_token()
        return self._all(request)

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _may(self, request: gr.Request) -> bool:
        return not self._settings.shared and is_local(request)

    def _check(self, request: gr.Request) -> None:
        if not self._may(request):
            raise ModelError(strings.MODELS_HOST_ONLY)

    def _all(self, request: gr.Request, asked: str = "") -> list[Any]:
        """Updates for the page, for the guide and for the form's choice of a model."""
        may = self._may(request)
        found = states(self._home)
        value = models_value(self._home, self._downloads, may, asked if may else "", found)
        card = {"show": False}
        if may:
            advice = self._advisor.ask(found)
            card = guide.card_value(advice, found, value["models"], self._downloads, may)
            value["guide"] = guide.page_value(advice, found, self._downloads)
            value["models"] = [row | guide.row_words(advice, row["id"]) for row in value["models"]]
        return [value, card, gr.update(**model_choices(cards()))]


def models_value(
    home: Home, downloads: Downloads, may: bool, asked: str = "", found: list[State] | None = None
) -> dict[str, Any]:
    """What the page shows. may: whoever looks may change things. asked: the model whose removal is asked about. found:
    what is here, where that is known already. failed: why a LoRA that is not on the list any more was not kept. What a
    person asked the hub for, and what became of it, is told to whoever may until it is here.

    models: rows, in the order of the catalogue; active: whether anything changes by itself; asked: {id, words, sure
    (what its button says), at (a number that is new)}.
    """
    found = states(home) if found is None else found
    if not may:
        found = [state for state in found if state.entry is None or not state.entry.hub or state.state == "here"]
    rows = [_row(state, downloads.get(state.id), may) for state in found]
    value: dict[str, Any] = {"models": rows, "may": may, "active": bool(downloads.running), "asked": {}, "failed": ""}
    if may:
        value["failed"] = " ".join(one.message for one in downloads.lost({state.id for state in found}))
        value |= {"token": has_token(), "disk": _disk(home), "ids": _ids(found)}
        if asked:
            value["asked"] = {"id": asked, **_removal_words(home, asked), "at": next(COUNT)}
    return value


def _row(state: State, download: Download | None, may: bool) -> dict[str, Any]:
    """One model. state: here, busy, partial or missing; can: what may be pressed, with its words."""
    entry = state.entry
    running = download is not None and download.state == "running"
    row: dict[str, Any] = {
        "id": state.id,
        "title": state.id if entry is None else entry.title,
        "state": "busy" if running and state.state != "here" else state.state,
        "chip": strings.MODELS_STATES["busy" if running and state.state != "here" else state.state],
        "notes": [],
        "message": "",
        "can": _can(state, download) if may else [],
        "size": _size(state),
        # Where it is on the disk is told to whoever has the disk.
        "where": [str(state.folder)] if may and state.place == "own" else [],
    }
    if entry is not None:
        row |= _about(entry)
    if may and state.own_files:
        row["where"] = list(state.own_files)
    if download is not None and state.state != "here":
        row |= _progress(download, state, may)
    elif state.state == "partial" and state.size:
        row["fraction"] = min(1.0, state.have / state.size)
        row["figures"] = [strings.MODELS_OF.format(have=size_words(state.have), size=size_words(state.size))]
    return row


def _about(entry: Entry) -> dict[str, Any]:
    """What is always so of a model of the catalogue."""
    notes = [entry.label] if entry.label else []
    if entry.spec is not None and not runs(entry.spec.family):
        notes.append(strings.MODELS_NOT_YET)
    if entry.gated:
        notes.append(strings.MODELS_GATED)
    if entry.hub:
        notes.append(strings.MODELS_LORA)
    facts = []
    if (spec := entry.spec) is not None:
        facts.append(f"{spec.width} x {spec.height}")
        facts.append(f"{spec.lengths()[0]} to {spec.lengths()[-1]} frames at {spec.fps:g} a second")
    if entry.steps is not None and entry.guidance is not None:
        facts.append(f"{entry.steps} steps at guidance {entry.guidance:g}")
    every = len(entry.tasks) == len(TASKS)
    does = strings.MODELS_EVERYTHING if every else ", ".join(TASKS[name].title for name in entry.tasks)
    reasons: dict[str, list[str]] = {}
    for name, reason in entry.why_not.items():
        reasons.setdefault(reason, []).append(TASKS[name].title)
    return {
        "summary": entry.summary,
        "notes": notes,
        "facts": facts,
        "does": does if entry.tasks else "",
        "trained": entry.trained_for,
        "not": [{"tasks": ", ".join(titles), "reason": reason} for reason, titles in reasons.items()],
        "licence": {"name": entry.licence, "link": entry.licence_link},
        "page": entry.page,
    }


def _can(state: State, download: Download | None) -> list[list[str]]:
    """What may be done with a model: verbs, with what stands on the button."""
    words = strings.MODELS_VERBS
    if state.place == "built-in":
        return []
    if state.place == "own":
        return [["ask", words["forget"]]]
    if download is not None and download.state == "running" and state.state != "here":
        return [["pause", words["pause"]]]
    if state.state == "here":
        return [["ask", words["remove"]]]
    if state.state == "partial":
        verb = "finish" if state.complete else "resume" if state.asked else "rest"
        return [["download", words[verb]], *([["ask", words["remove"]]] if state.asked or state.own_files else [])]
    size = "" if state.size is None else size_words(state.size)
    about = "download_about" if state.about and size else "download"
    off = [["ask", words["forget"]]] if state.entry is not None and state.entry.hub else []
    return [["download", words[about].format(size=size).strip()], *off]


def _size(state: State) -> str:
    if state.place:
        return strings.MODELS_PLACES[state.place]
    if state.size is None:
        return strings.MODELS_SIZE_LATER
    return f"{strings.MODELS_ABOUT if state.about else ''}{size_words(state.size)}"


def _progress(download: Download, state: State, may: bool) -> dict[str, Any]:
    step = download.step
    if download.state == "failed":
        # It may say where things are on this disk.
        return {"message": download.message if may else strings.MODELS_FAILED, **_rest(state)}
    if download.state != "running":
        return _rest(state)
    if step.phase != "downloading":
        return {"figures": [strings.MODELS_PHASES[step.phase]], "fraction": None}
    figures = [strings.MODELS_OF.format(have=size_words(step.done), size=size_words(step.total))]
    if step.speed:
        figures.append(f"{size_words(step.speed)}/s")
    if step.left is not None and step.done < step.total:
        figures.append(strings.MODELS_LEFT.format(clock=clock(step.left)))
    return {"figures": figures, "fraction": step.done / step.total if step.total else None}


def _rest(state: State) -> dict[str, Any]:
    """A download that stands still."""
    if not state.size or not state.have:
        return {}
    words = strings.MODELS_OF.format(have=size_words(state.have), size=size_words(state.size))
    return {"figures": [words], "fraction": min(1.0, state.have / state.size)}


def _removal_words(home: Home, model_id: str) -> dict[str, str]:
    plan = removal(home, model_id)
    if plan.own is not None:
        words = strings.MODELS_FORGET.format(title=plan.title, folder=plan.own)
        return {"words": words, "sure": strings.MODELS_SURE_FORGET}
    if not plan.frees and not plan.kept:
        return {"words": strings.MODELS_OFF.format(title=plan.title), "sure": strings.MODELS_SURE_FORGET}
    words = strings.MODELS_REMOVE.format(title=plan.title, size=size_words(plan.frees))
    if plan.kept:
        words += f" {strings.MODELS_SHARED.format(titles=strings.AND.join(plan.kept))}"
    return {"words": words, "sure": strings.MODELS_SURE_REMOVE}


def _removed(plan: Any) -> str:
    if plan.own is not None:
        return strings.MODELS_FORGOTTEN.format(title=plan.title)
    if not plan.frees and not plan.kept:
        return strings.MODELS_IS_OFF.format(title=plan.title)
    return strings.MODELS_REMOVED.format(title=plan.title, size=size_words(plan.frees))


def _ids(found: list[State]) -> list[list[str]]:
    """The models that a folder or file of one's own can be."""
    entries = [state.entry for state in found if state.entry is not None and state.entry.parts and not state.entry.hub]
    return [["", strings.MODELS_OWN_ID], *([entry.id, entry.title] for entry in entries)]


def _disk(home: Home) -> str:
    with contextlib.suppress(OSError, UserError):
        place = next(path for path in (home.hub_cache, *home.hub_cache.parents) if path.exists())
        return strings.MODELS_DISK.format(free=size_words(shutil.disk_usage(place).free), folder=home.hub_cache)
    return ""
