"""Sweeps on the page: what the fields hold of one that waits, who may save it, the cells of one without its grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pusa_app import media, testing
from pusa_app.errors import RecipeError
from pusa_app.jobs import Job
from pusa_app.presets import find_preset, preset_axis, save_preset
from pusa_app.settings import LOCAL, Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.sweep import REPORT, cells_folder
from pusa_app.timeline import MAX_CELLS, MAX_STEPS, Recipe, Sweep, new_sweep
from pusa_app.timeline.recipe import MAX_SEED
from pusa_app.ui import strings
from pusa_app.ui.blocks import _Create
from pusa_app.ui.choices import NAMES, Choices
from pusa_app.ui.player import stage_value
from pusa_app.ui.queue import Queue, queue_value
from pusa_app.ui.sweeps import MAX_TEXT, cells_value, fields_for, sweep_of

SEEDS = {"kind": "seed", "values": [1, 2, 3]}
PRESETS = ("Exact first frame", "First frame, free to move", "Short draft", "Loop around a picture")


@pytest.fixture(autouse=True, scope="module")
def fake() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUSA_TEST_FAKE", "1")
        yield


def recipe(*paths: str, **fields: Any) -> Recipe:
    keyframes = [{"slot": slot, "source": {"kind": "image", "path": path}} for slot, path in enumerate(paths)]
    task = "image-to-video" if len(paths) == 1 else "keyframes" if paths else "text-to-video"
    return new_recipe(testing.card(), task, **{"prompt": "blue", "num_frames": 25, "keyframes": keyframes, **fields})


# --- what the fields hold --------------------------------------------------------------------------------------------


def again(sweep: Sweep, folder: Path = Path("/nowhere")) -> Sweep:
    """What `sweep_of` makes of the fields that a sweep fills."""
    fields = [value for choice in fields_for(sweep) for value in dataclasses.astuple(choice)]
    assert len(fields) == 6 and all(len(text) <= MAX_TEXT for text in (fields[2], fields[5]))
    return sweep_of(sweep.recipe, testing.card(), folder, tuple(fields))


def listed(numbers: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(numbers, min_size=1, max_size=most, unique=True)


def in_a_row(least: int, most: int, count: int) -> st.SearchStrategy[list[int]]:
    """Numbers of which some follow each other."""
    start = st.integers(least, most - count)
    return st.tuples(start, st.sets(st.integers(0, count), min_size=1, max_size=count)).map(
        lambda drawn: [drawn[0] + step for step in sorted(drawn[1])]
    )


def axes(most: int) -> st.SearchStrategy[Any]:
    seeds = listed(st.integers(0, MAX_SEED), most) | in_a_row(0, MAX_SEED, most)
    steps = listed(st.integers(1, MAX_STEPS), most) | in_a_row(1, MAX_STEPS, most)
    finite: dict[str, Any] = {"allow_nan": False, "allow_infinity": False}
    plain = {
        "seed": seeds,
        "steps": steps,
        "guidance": listed(st.floats(0, 100, **finite) | st.integers(0, 100), most),
        "noise": listed(st.floats(0, 1, **finite) | st.sampled_from([0, 0.25, 1, 5e-324]), most),
    }
    kinds = [st.fixed_dictionaries({"kind": st.just(kind), "values": values}) for kind, values in plain.items()]
    kinds[3] = st.tuples(kinds[3], st.integers(0, 1)).map(lambda drawn: {**drawn[0], "keyframe": drawn[1]})
    return st.one_of(*kinds)


@given(st.lists(axes(8), min_size=1, max_size=2, unique_by=lambda axis: (axis["kind"], axis.get("keyframe"))))
def test_the_fields_of_a_sweep_make_it_again(chosen: list[dict[str, Any]]) -> None:
    sweep = new_sweep(recipe("a.png", "b.png"), *chosen)
    assert again(sweep) == sweep


@given(axes(MAX_CELLS))
def test_as_many_values_as_a_sweep_may_have_are_made_again(chosen: dict[str, Any]) -> None:
    sweep = new_sweep(recipe("a.png", "b.png"), chosen)
    assert again(sweep) == sweep


@given(listed(st.sampled_from(PRESETS), 4), st.none() | axes(8).filter(lambda axis: not axis.get("keyframe")))
def test_presets_make_the_same_sweep_again(titles: list[str], other: dict[str, Any] | None) -> None:
    base = recipe("a.png")
    chosen: list[Any] = [preset_axis(base, testing.card(), [find_preset(title) for title in titles])]
    try:
        sweep = new_sweep(base, *chosen, *([other] if other else []))
    except RecipeError:  # a noise of a keyframe that one of the presets has not
        assert other is not None and other["kind"] == "noise"
        return
    assert again(sweep) == sweep


def test_own_presets_are_written_so_that_they_are_found(tmp_path: Path) -> None:
    titles = ["Soft, slow; very", "a" * 60, "Ünlike, 2,5"]
    for title in titles:
        save_preset(tmp_path, find_preset("exact-first-frame").model_copy(update={"title": title}))
    base = recipe("a.png")
    axis = preset_axis(base, testing.card(), [find_preset(title, tmp_path) for title in titles])
    sweep = new_sweep(base, axis, SEEDS)
    assert axis.values == tuple(titles) and again(sweep, tmp_path) == sweep


def test_values_are_written_as_people_write_them() -> None:
    noise = {"kind": "noise", "keyframe": 1, "values": [0, 0.3, 1]}
    first, second = fields_for(
        new_sweep(recipe("a.png", "b.png"), noise, {"kind": "seed", "values": [7, 3, 4, 5, 9, 10]})
    )
    assert dataclasses.astuple(first) == ("noise", 2, "0, 0.3, 1")
    assert dataclasses.astuple(second) == ("seed", 1, "7, 3-5, 9, 10")
    alone = fields_for(new_sweep(recipe(), {"kind": "guidance", "values": [6, 1.5]}))
    assert [dataclasses.astuple(choice) for choice in alone] == [("guidance", 1, "6, 1.5"), ("", 1, "")]


def test_keyframes_are_counted_from_the_left() -> None:
    """Whatever their order in the timeline, which is that of a recipe's file."""
    base = recipe("a.png", "b.png", "c.png")
    mixed = base.model_copy(update={"timeline": base.timeline.having(*(base.timeline.keyframes[n] for n in (2, 0, 1)))})
    for number, slot in ((1, 0), (2, 1), (3, 2)):
        sweep = sweep_of(mixed, testing.card(), Path("/nowhere"), ("noise", number, "0, 0.7", "", 1, ""))
        changed = [k for k in sweep.cells()[1].recipe.timeline.keyframes if k.noise == 0.7]
        assert [k.slot for k in changed] == [slot] and sweep.labels[0][1] == f"slot {slot} noise 0.7"
        assert fields_for(sweep)[0].keyframe == number and again(sweep) == sweep


# --- editing ---------------------------------------------------------------------------------------------------------

REQUEST: Any = SimpleNamespace(
    username="", session_hash="open", headers={"host": "127.0.0.1"}, client=SimpleNamespace(host="127.0.0.1")
)


class Page:
    """The events of the page Create, with a studio that starts nothing."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        with gr.Blocks() as page:
            with gr.Tabs() as pages:
                gr.Tab()
            queue = Queue()
            queue.build()
            self.create = _Create(studio)
            self.create.wire(page, pages, queue)

    def edit(self, job: Job, editing: str = "") -> dict[Any, Any]:
        """Press Edit; what that changes, by component."""
        updates = self.create._edit("", editing, REQUEST, SimpleNamespace(id=job.id))  # type: ignore[arg-type]
        parts = [*self.create.form.everything, *self.create.edit_view]
        return dict(zip(parts, updates, strict=False))

    def press(self, handler: Callable[..., Any], editing: str, made: Recipe, *fields: Any, random: bool = False) -> Any:
        values = [getattr(Choices.of(made), name) for name in NAMES]
        return handler("", "", editing, random, 1, True, REQUEST, *values, *fields)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    studio = Studio(Settings(data_dir=tmp_path / "data"), idle=True)
    yield Page(studio)
    studio.close()


def state_of(update: Any, name: str) -> Any:
    return update.get(name) if isinstance(update, dict) else None


def test_a_waiting_sweep_comes_into_the_form_and_is_saved_by_its_button(page: Page) -> None:
    job = page.studio.submit_sweep(new_sweep(recipe(), SEEDS), LOCAL)
    view, form = page.edit(job), page.create.form
    assert page.studio.job(job.id).held  # type: ignore[union-attr]
    assert (view[page.create.editing], view[form.prompt]) == (job.id, "blue")
    assert state_of(view[form.generate], "visible") is False and state_of(view[form.count], "visible") is False
    assert state_of(view[form.sweep.run], "value") == strings.SAVE_TO_QUEUE
    assert state_of(view[form.sweep.box], "open") is True
    kind, keyframe, values, second = (view[part] for part in form.sweep.inputs[:4])
    assert (kind, second, values["value"], keyframe["visible"]) == ("seed", "", "1-3", False)
    page.press(page.create._sweep, job.id, recipe(seed=5), "steps", 1, "2, 4", "seed", 1, "8, 9", random=True)
    changed = page.studio.job(job.id)
    assert changed is not None and not changed.held and len(page.studio.queue(LOCAL)) == 1
    made = page.studio.sweep(changed)
    assert made is not None and [cell.labels[1] for cell in made.cells()] == ["seed 8", "seed 9"] * 2
    assert made.recipe.seed == 5, "what is edited keeps its seed"


def test_a_single_video_never_takes_the_place_of_an_edited_sweep(page: Page) -> None:
    job = page.studio.submit_sweep(new_sweep(recipe(), SEEDS), LOCAL)
    page.edit(job)
    with pytest.raises(gr.Error, match="You are editing a sweep"):
        page.press(page.create._generate, job.id, recipe())
    with pytest.raises(gr.Error, match="You are editing a sweep"):
        page.create._try_preset("", job.id, testing.FAKE, REQUEST, SimpleNamespace(name="short-draft"))  # type: ignore[arg-type]
    made = page.studio.sweep(page.studio.queue(LOCAL)[0])
    assert made is not None and made.axes[0].values == (1, 2, 3)
    # Enter in the prompt saves as the button does that is there.
    page.press(page.create._enter, job.id, recipe(), "seed", 1, "5", "", 1, "")
    made = page.studio.sweep(page.studio.queue(LOCAL)[0])
    assert made is not None and made.axes[0].values == (5,) and len(page.studio.queue(LOCAL)) == 1


def test_a_sweep_never_takes_the_place_of_an_edited_video(page: Page) -> None:
    job, swept = page.studio.submit(recipe(), LOCAL), page.studio.submit_sweep(new_sweep(recipe(), SEEDS), LOCAL)
    form = page.create.form
    view = page.edit(job)
    assert state_of(view[form.sweep.box], "visible") is False and state_of(view[form.generate], "visible") is True
    with pytest.raises(gr.Error, match="You are editing a video"):
        page.press(page.create._sweep, job.id, recipe(), "seed", 1, "5", "", 1, "")
    assert len(page.studio.queue(LOCAL)) == 2
    # From one to the other, the first is let go.
    view = page.edit(swept, editing=job.id)
    assert state_of(view[form.sweep.box], "visible") is True and state_of(view[form.generate], "visible") is False
    assert [one.held for one in page.studio.queue(LOCAL)] == [False, True]
    given_back = page.create._stop_editing("", swept.id, REQUEST)
    view = dict(zip(page.create.edit_view, given_back, strict=False))
    assert (
        state_of(view[form.generate], "visible") is True
        and state_of(view[form.sweep.run], "value") == strings.SWEEP_RUN
    )
    assert not any(one.held for one in page.studio.queue(LOCAL))


def test_what_was_edited_and_is_gone_is_said_in_words(page: Page) -> None:
    job = page.studio.submit_sweep(new_sweep(recipe(), SEEDS), LOCAL)
    page.edit(job)
    page.studio.cancel(job.id)
    with pytest.raises(gr.Error, match="no longer waiting"):
        page.press(page.create._sweep, job.id, recipe(), "seed", 1, "5", "", 1, "")
    with pytest.raises(gr.Error, match="no longer waiting"):
        page.edit(job)
    assert not page.studio.queue(LOCAL)


# --- the cells of a sweep without its grid ---------------------------------------------------------------------------


def made_of(studio: Studio, job: Job, *names: str) -> None:
    """Put cells of a sweep where they would be."""
    folder = cells_folder(Path(job.out))
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with media.ClipWriter(folder / name, 64, 64, 12) as clip:
            clip.write(np.full((7, 64, 64, 3), 90, np.uint8))


def shown_of(page: Page, job: Job, cell: int = -1) -> dict[Any, Any]:
    return dict(zip(page.create.view, page.create._show(job, LOCAL, cell), strict=True))


def test_the_cells_of_a_cancelled_sweep_are_shown(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pusa_app.ui.blocks.publish", str)
    studio, create = page.studio, page.create
    job = studio.submit_sweep(new_sweep(recipe(), {"kind": "seed", "values": [4, 5, 6, 7]}), LOCAL)
    studio.cancel(job.id)
    job = studio.job(job.id)  # type: ignore[assignment]
    view = shown_of(page, job)
    assert not view[create.cells]["visible"] and view[create.stage]["value"]["detail"] == strings.CANCELLED_DETAIL
    made_of(studio, job, "1-1.mp4", "1-3.mp4")
    (cells_folder(Path(job.out)) / REPORT).write_text('{"1-2.mp4": "It failed."}')
    view = shown_of(page, job)
    value = view[create.cells]["value"]
    assert view[create.cells]["visible"] and view[create.stage]["visible"] and not view[create.player]["visible"]
    assert (value["all"], value["note"], value["chosen"]) == ("", "2 of 4 videos were made.", -1)
    assert [(one["cell"], one["label"], one["problem"]) for one in value["cells"]] == [
        (0, "seed 4", ""),
        (1, "seed 5", "It failed."),
        (2, "seed 6", ""),
    ]
    assert all(one["picture"].startswith("data:image/jpeg") for one in value["cells"][::2])
    assert stage_value(studio, job)["detail"] == strings.CANCELLED_SWEEP
    # One of them in the player, with its settings.
    chosen = create._choose_cell("", job.id, REQUEST, SimpleNamespace(cell=2))  # type: ignore[arg-type]
    view = dict(zip(create.view, chosen, strict=True))
    assert view[create.player]["value"].endswith("1-3.mp4") and not view[create.stage]["visible"]
    assert view[create.cells]["value"]["chosen"] == 2 and "seed 6" in view[create.caption]["value"]
    assert view[create.go_on["extend"]]["visible"] and view[create.cell] == 2
    filled = dict(zip(create.form.everything, create._reuse("", job.id, 2, REQUEST), strict=True))
    assert filled[create.form.seed] == 6
    # There is no grid to choose, nor what was not made.
    for cell in (-1, 1, 3, 4, "0"):
        with pytest.raises(gr.Error):
            create._choose_cell("", job.id, REQUEST, SimpleNamespace(cell=cell))  # type: ignore[arg-type]
    assert shown_of(page, job, cell=3)[create.cell] == -1


def test_the_queue_leads_to_what_was_made_of_a_sweep(page: Page) -> None:
    studio = page.studio
    swept, other = (studio.submit_sweep(new_sweep(recipe(), SEEDS), LOCAL) for _ in range(2))
    single = studio.submit(recipe(), LOCAL)
    made_of(studio, swept, "1-2.mp4")
    assert [row["editable"] for row in queue_value(studio, LOCAL)["jobs"]] == [True] * 3
    for job in (swept, other, single):
        studio.cancel(job.id)
    rows = {row["id"]: row for row in queue_value(studio, LOCAL)["ended"]}
    assert rows[swept.id]["made"] and rows[swept.id]["facts"][2] == "1 of 3 videos were made"
    assert rows[other.id]["facts"][2] == "3 videos"
    assert not any("made" in rows[job.id] for job in (other, single))


def test_a_sweep_with_its_grid_offers_all_of_it(page: Page) -> None:
    studio = page.studio
    job = studio.submit_sweep(new_sweep(recipe(), SEEDS), LOCAL)
    made_of(studio, job, "1-1.mp4")
    Image.new("RGB", (8, 8)).save(Path(job.out).with_suffix(".jpg"))
    Path(job.out).write_bytes(b"the grid")
    value = cells_value(studio, dataclasses.replace(job, state="done"), -1)
    assert (value["all"], value["note"]) == (strings.SWEEP_ALL, "")
