"""The first-run guide: what this machine could run besides mini, and the download of it in two clicks.

A card on Create, which opens into an offer, and lines on the page Models. The sentences are those of
`models/offers.py`, which makes them of the memory plan.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.models.fitting import Memory
from pusa_app.models.home import Home
from pusa_app.models.machine import this_machine
from pusa_app.models.offers import Offer, machine_words, offers, recommended, verdict
from pusa_app.models.weights import State
from pusa_app.models.weights.downloads import Downloads
from pusa_app.ui import strings
from pusa_app.ui.drawn import DOM, DrawnWithEvents

HERE = Path(__file__).parent
KNOWN_SECONDS = 60.0  # plans of the whole catalogue take most of a second, and free memory moves all the time


class GuideView(DrawnWithEvents):
    """Value: what `card_value` gives. Events: act ({verb: download | pause | use | models, id}), tick."""

    EVENTS = [*gr.HTML.EVENTS, "act", "tick"]  # noqa: RUF012


def make_guide() -> GuideView:
    return GuideView({}, script=(DOM, HERE / "guide.js"), elem_id="guide", words=strings.GUIDE)


class Advisor:
    """What each model would do here. Thread safe; what was found is kept for a minute, or until another model is
    here."""

    def __init__(self, home: Home) -> None:
        self._memory = Memory(home.data_dir)
        self._lock = threading.Lock()
        self._known: tuple[float, Any, Advice] | None = None

    def ask(self, found: Sequence[State]) -> Advice:
        # A download that moves on changes nothing of how a model runs.
        mark = [(state.id, state.state) for state in found]
        with self._lock:
            if self._known is not None and self._known[1] == mark and time.monotonic() < self._known[0]:
                return self._known[2]
            machine = this_machine()
            told = offers(found, machine, self._memory)
            advice = Advice(machine_words(machine), told, verdict(machine, told))
            self._known = time.monotonic() + KNOWN_SECONDS, mark, advice
            return advice


class Advice:
    """machine: this one in words; verdict: what is to be said when nothing fits."""

    def __init__(self, machine: str, told: Sequence[Offer], verdict: str) -> None:
        self.machine, self.verdict = machine, verdict
        self.offers = {one.id: one for one in told}
        self.first = recommended(told)


def page_value(advice: Advice, found: Sequence[State], downloads: Downloads) -> dict[str, Any]:
    """What stands above the models on their page: {machine, verdict: what to say, first: the id of the model that is
    offered there, or ""}. What is on its way is offered no more."""
    first = advice.first if advice.first is not None and not _real(found) else None
    value = {"machine": strings.GUIDE_MACHINE.format(machine=advice.machine), "verdict": "", "first": ""}
    if first is not None and first.id in downloads.running:
        value["verdict"] = f"{first.runs}."
    elif first is not None:
        value |= {"first": first.id, "verdict": first.question}
    elif not _real(found):
        value["verdict"] = advice.verdict
    return value


def row_words(advice: Advice, model_id: str) -> dict[str, str]:
    """How a model would run here, for its row: {runs, how}."""
    one = advice.offers.get(model_id)
    if one is None or one.lacks == "version":
        return {"runs": "", "how": ""}
    if not one.fits:
        return {"runs": strings.GUIDE_NOT_HERE.format(reason=one.reason), "how": ""}
    runs = strings.GUIDE_HERE.format(clip=one.clip) if one.clip else one.runs
    return {"runs": runs, "how": " ".join(filter(None, (one.faster, one.short, one.how)))}


def card_value(
    advice: Advice, found: Sequence[State], rows: Sequence[Mapping[str, Any]], downloads: Downloads, may: bool
) -> dict[str, Any]:
    """What the card on Create shows; {"show": False} when it shows nothing.

    offers: the one to begin with first, each {id, title, words, about, short, how, reason, state, can, figures,
    fraction, message, licence}; moving: the id of the one that is being got or just came, or "".
    """
    mine = [one.id for one in advice.offers.values() if one.plan is not None and downloads.get(one.id) is not None]
    if not may or advice.first is None or (_real(found) and not mine):
        return {"show": False}
    row_of = {row["id"]: row for row in rows}
    first = advice.first.id
    ordered = sorted((one for one in advice.offers.values() if one.plan is not None), key=lambda one: one.id != first)
    return {
        "show": True,
        "intro": strings.GUIDE_INTRO.format(machine=advice.machine),
        "moving": next((one for one in mine if one in downloads.running), mine[-1] if mine else ""),
        "offers": [_shown(one, row_of[one.id]) for one in ordered],
    }


def _shown(one: Offer, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("state", "figures", "fraction", "message", "licence")
    return {
        "id": one.id,
        "title": one.title,
        "words": one.question or one.runs,
        "about": " ".join(filter(None, (row.get("summary"), one.faster))),
        "short": one.short,
        "how": one.how,
        "reason": "" if one.fits else one.reason,
        "can": [[verb, words] for verb, words in row["can"] if verb in ("download", "pause")] if one.fits else [],
        **{name: row.get(name) for name in names},
    }


def _real(found: Sequence[State]) -> bool:
    """Whether a model is here that is not built in."""
    return any(
        state.state == "here" and state.place != "built-in" and (state.entry is None or state.entry.kind == "model")
        for state in found
    )
