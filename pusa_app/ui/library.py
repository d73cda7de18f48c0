"""The page Library: every video that was made, to be found, seen, compared, kept, and gone on from.

The script holds what is searched for and chosen; every event carries that, and its answer is the list as it is then.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import RecipeError, UserError
from pusa_app.jobs import Job
from pusa_app.studio import Studio, card_of, cards
from pusa_app.timeline import TASKS
from pusa_app.ui import strings
from pusa_app.ui.drawn import DOM, Drawn, DrawnWithEvents
from pusa_app.ui.dropped import dropped_recipe
from pusa_app.ui.form import Form
from pusa_app.ui.library_items import (
    MOST,
    PAGE,
    Query,
    address,
    detail,
    differences,
    listed,
    looks,
    recipe_text,
)
from pusa_app.ui.placing import continued, frame_of, placed
from pusa_app.ui.player import is_uploaded, publish_bytes, safe
from pusa_app.ui.visitors import WHOLE, gone, job_of, number, owner_of, recipe_of, told_to_user, video_of

HERE = Path(__file__).parent
SCRIPTS = (DOM, *(HERE / name for name in ("library.js", "library_one.js", "library_pair.js")))
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
COUNT = itertools.count(1)  # of what must be news each time
KINDS = [kind for kind, _ in strings.LIBRARY["kinds"]]
QUALITIES = [quality for quality, _ in strings.LIBRARY["qualities"]]
UNTOUCHED = {"mp4": None, "webm": "high"}
GO_ON = ("extend", "loop")


class LibraryView(DrawnWithEvents):
    """Value: what `listed` gives. Props: looks, detail, pair, file and told, each with a number `at` that is new.

    Events carry {query, ...}. search; look ({posters, clips}: ids); show ({id, cell}); compare ({ids});
    star ({id, on}); remove and restore ({ids}); export ({id, cell, kind, quality, recipe});
    use, frame ({seconds}), go_on ({task}) with {id, cell}.
    """

    EVENTS = [  # noqa: RUF012
        *gr.HTML.EVENTS,
        *("search", "look", "show", "compare", "star", "remove", "restore", "export", "use", "frame", "go_on"),
    ]


class Library:
    """`build` inside the tab; `build_drop` outside of the tabs, since what is in an unopened tab does not live."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def build(self) -> None:
        self.view = LibraryView(
            {},
            script=SCRIPTS,
            elem_id="library",
            looks={},
            detail={},
            pair={},
            file={},
            told={},
            words={
                **strings.LIBRARY,
                "page": PAGE,
                "tasks": [[name, task.title] for name, task in TASKS.items()],
                "models": [[card.id, card.title] for card in cards()],
            },
        )

    def build_drop(self) -> None:
        self.drop = Drawn({}, script=HERE / "drop.js", elem_id="drop", told={}, words=strings.DROP)

    def wire(self, owner: gr.BrowserState, form: Form, pages: gr.Tabs) -> None:
        """owner: the visitor's mark. form, pages: where settings and keyframes go, and the tabs above them."""
        self._form = form
        view = self.view
        answers: dict[str, Any] = {"inputs": owner, "outputs": view, **QUIET}
        # Gradio's trigger mode "always_last" forgets what an event carries; the script asks one question at a time.
        changes = {"search": self._listed, "star": self._star, "remove": self._remove, "restore": self._restore}
        asks = {"look": self._look, "show": self._show, "compare": self._compare, "export": self._export}
        for name, answer in (changes | asks).items():
            getattr(view, name)(self._answering(answer), **answers, trigger_mode="multiple")
        there = [*form.everything, pages]
        view.use(self._use, owner, there, **QUIET)
        view.go_on(self._go_on, [owner, form.model], there, **QUIET)
        view.frame(self._frame, owner, [form.timeline, pages], **QUIET, trigger_mode="multiple")
        self.drop.submit(self._dropped, owner, [self.drop, *there], **QUIET, trigger_mode="multiple")

    # --- answers to the view -----------------------------------------------------------------------------------------

    def _answering(self, answer: Callable[[str, Mapping[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
        """An event as the script sends it. What cannot be done is told in the view, with the list as it is."""

        def asked(mark: str, request: gr.Request, event: gr.EventData) -> dict[str, Any]:
            owner, data = owner_of(mark, request, self._studio.settings.shared), _sent(event)
            try:
                return gr.update(**answer(owner, data))
            except (UserError, gr.Error) as error:
                words = error.message if isinstance(error, gr.Error) else str(error)
                return gr.update(**self._listed(owner, data), told=_news(text=words))

        return asked

    def _listed(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"value": listed(self._studio, owner, Query.of(data.get("query")))}

    def _look(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"looks": _news(**looks(self._studio, owner, _ids(data, "posters"), _ids(data, "clips")))}

    def _show(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"detail": _news(**detail(self._studio, *self._chosen(owner, data)))}

    def _compare(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        one, other = (detail(self._studio, job_of(self._studio, name, owner)) for name in _two(_ids(data)))
        return {"pair": _news(sides=[one, other], differences=differences(one, other))}

    def _star(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        for name in _ids(data):
            self._studio.favourite(name, owner, data.get("on") is True)
        return self._listed(owner, data)

    def _remove(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        self._studio.delete(_ids(data), owner)
        return self._listed(owner, data)

    def _restore(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        self._studio.restore(_ids(data), owner)
        return self._listed(owner, data)

    def _export(self, owner: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """A video in another form, as a file that the browser then fetches."""
        from pusa_app.media import ENDINGS, export_clip

        job, cell = self._chosen(owner, data)
        kind, quality = data.get("kind"), data.get("quality")
        if kind not in KINDS or quality not in QUALITIES:
            raise gone()
        video = video_of(self._studio, job, cell)
        options: dict[str, Any] = {
            # GIFs and frames have none to choose, and only an MP4 can stay as it is.
            "quality": None if kind in ("gif", "frames") else UNTOUCHED[kind] if quality == "original" else quality,
            # Also where the file itself was made without.
            "recipe": recipe_text(self._studio, job, cell) if data.get("recipe") is True else False,
        }
        name = f"{video.stem}{ENDINGS[kind]}"
        made = publish_bytes(lambda file: export_clip(video, file, kind, **options), name)
        return {"file": _news(url=address(made), name=name)}

    # --- back to Create ----------------------------------------------------------------------------------------------

    def _use(self, mark: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """The settings of a video fill the form."""
        job, cell = self._chosen(owner_of(mark, request, self._studio.settings.shared), _sent(event))
        with told_to_user():
            return [*self._form.everything_of(recipe_of(self._studio, job, cell)), _to_create()]

    def _go_on(self, mark: str, model: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """A video becomes the clip of another task, with the same words."""
        data = _sent(event)
        job, cell = self._chosen(owner_of(mark, request, self._studio.settings.shared), data)
        if data.get("task") not in GO_ON:
            raise gone()
        with told_to_user():
            recipe, video = recipe_of(self._studio, job, cell), video_of(self._studio, job, cell)
            return [*self._form.everything_of(continued(recipe, data["task"], video, card_of(model))), _to_create()]

    def _frame(self, mark: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """The frame at which the player stands goes onto the timeline."""
        data = _sent(event)
        job, cell = self._chosen(owner_of(mark, request, self._studio.settings.shared), data)
        video, seconds = video_of(self._studio, job, cell), number(data.get("seconds"))
        if cell == WHOLE and self._studio.sweep(job) is not None:
            raise gr.Error(strings.SWEEP_CHOOSE, print_exception=False)
        return [placed(lambda: frame_of(video, seconds)), _to_create()]

    def _dropped(self, mark: str, request: gr.Request, event: gr.EventData) -> list[Any]:
        """The recipe of a dropped video fills the form. What is wrong with it is told beside what stays as it is."""
        path, owner = _sent(event).get("path"), owner_of(mark, request, self._studio.settings.shared)
        try:
            if not isinstance(path, str) or not is_uploaded(path):
                raise RecipeError(strings.NOT_UPLOADED)
            filled = self._form.everything_of(*dropped_recipe(Path(path), self._studio, owner))
        except UserError as error:
            gr.Warning(safe(str(error)), title=strings.FAILED_TITLE)
            return [gr.update(told=_news()), *(gr.skip() for _ in self._form.everything), gr.skip()]
        return [gr.update(told=_news()), *filled, _to_create()]

    def _chosen(self, owner: str, data: Mapping[str, Any]) -> tuple[Job, int]:
        """The job that an event is about, and which cell of it."""
        job, cell = job_of(self._studio, data.get("id"), owner), data.get("cell", WHOLE)
        if type(cell) is not int or not WHOLE <= cell < len(self._studio.cells(job)):
            raise gone()
        return job, cell


def _sent(event: gr.EventData) -> Mapping[str, Any]:
    """What the script sent with an event; a program can send anything."""
    return event._data if isinstance(event._data, Mapping) else {}


def _ids(data: Mapping[str, Any], name: str = "ids") -> list[str]:
    found = data.get(name)
    return [i for i in found if isinstance(i, str)][:MOST] if isinstance(found, list) else []


def _two(ids: list[str]) -> list[str]:
    if len(ids) != 2:
        raise gr.Error(strings.LIBRARY["compare_help"], print_exception=False)
    return ids


def _news(**values: Any) -> dict[str, Any]:
    return {"at": next(COUNT), **values}


def _to_create() -> dict[str, Any]:
    return gr.update(selected="create")
