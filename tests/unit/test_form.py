"""What is said under the controls of the form and what takes it away again; which timeline follows from a change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.models import ModelCard, get_card
from pusa_app.settings import Settings
from pusa_app.studio import new_recipe
from pusa_app.timeline import TASKS, ClipSource, ImageSource, Keyframe, TaskNoise, Timeline, advise
from pusa_app.ui import strings
from pusa_app.ui.choices import NAMES, Basis, Choices, of_model
from pusa_app.ui.form import Form


@pytest.fixture(autouse=True, scope="module")
def fake() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUSA_TEST_FAKE", "1")
        yield


@pytest.fixture(scope="module")
def form(fake: None) -> Form:
    with gr.Blocks():
        form = Form(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
        form.build_tabs()
        form.build()
        form.build_timeline()
    return form


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def said(form: Form, updates: list[Any]) -> dict[str, str | None]:
    """What the lines say by control: None where what stands there stays."""
    lines = dict(zip(form._notes, updates, strict=True))
    return {name: None if line == gr.skip() else line["value"] for name, line in lines.items()}


def choices(task: str = "text-to-video", *keyframes: Keyframe, **more: Any) -> Choices:
    recipe = new_recipe(testing.card(), task, prompt=more.pop("prompt", ""), keyframes=keyframes, **more)
    return Choices.of(recipe)


def test_what_is_missing_is_said_when_generate_is_pressed_and_stands(form: Form) -> None:
    nothing = choices()
    refused = form.refuse(nothing)
    assert refused is not None
    look, _, *lines = refused
    assert strings.PROMPT_MISSING in said(form, lines)["prompt"] and look["target"] == "#prompt-note"
    # An answer that belongs to a change from before the press says nothing of it.
    _, *lines = form._say(nothing, nothing.blank())
    assert said(form, lines)["prompt"] is None
    _, *lines = form._say(choices(prompt="a ball"), nothing.blank())
    assert said(form, lines)["prompt"] == ""


def test_a_refused_file_is_told_of_though_the_timeline_does_without_it(form: Form, picture: str) -> None:
    placed = choices("image-to-video", Keyframe(slot=0, source=ImageSource(path=picture)), prompt="a ball")
    alone = Choices(**{**placed.__dict__, "image": None})
    assert form.refuse(alone) is None
    _, *lines = form._say(alone, alone.blank())
    assert said(form, lines)["image"] is None
    _, *lines = form._say(placed, placed.timeline)  # type: ignore[arg-type]
    assert said(form, lines)["image"] == ""


def test_a_run_that_begins_takes_away_all_that_was_said(form: Form) -> None:
    assert set(said(form, form.content()).values()) == {""}


def test_a_recipe_that_fills_the_form_leaves_nothing_of_what_was_said(form: Form) -> None:
    filled = dict(zip(form.filled, form.fill(new_recipe(testing.card(), "text-to-video")), strict=True))
    assert {filled[note]["value"] for note in form._notes.values()} == {""}


def test_a_model_that_is_gone_is_no_crash(form: Form) -> None:
    gone = {**choices(prompt="a ball").__dict__, "model": "removed"}
    updates = form._follow(form.followed.value, *gone.values())
    assert updates == [gr.skip()] * len(form.followed_outputs)
    with pytest.raises(gr.Error, match="There is no model"):
        form.with_model("removed", "text-to-video", None, None)


def test_a_recipe_of_another_model_tells_the_editor_of_that_model(form: Form, second: ModelCard) -> None:
    recipe = new_recipe(second, "start-end")
    refused = form.refuse(Choices.of(recipe))
    assert refused is not None
    for editor in (form.fill(recipe)[0], form.hold(Choices.of(recipe))[0], refused[1]):
        assert editor["slots_max"] == 31 and editor["new_noise"] == {"first": 0.1, "middle": 0.5, "last": 0.4}


# --- what follows from a change --------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    return [str(path) for path in paths]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """60 frames at 12 a second."""
    with media.ClipWriter(tmp_path / "clip.mp4", 64, 64, 12) as writer:
        writer.write(np.full((60, 64, 64, 3), 90, np.uint8))
    return str(tmp_path / "clip.mp4")


@pytest.fixture
def second(form: Form, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """A model with another clock, size and advice."""
    return other(monkeypatch, width=128, noise=TaskNoise(start=0.1, middle=0.5, end=0.4, closing=0.25, restyle=0.6))


def other(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> ModelCard:
    """A second model: that of the tests with these numbers."""
    own = testing.card()
    numbers = {"temporal_stride": 4, "fps": 16.0, "num_frames": 81, "max_frames": 121, **changes}
    card = own.model_copy(update={"id": "other", "spec": own.spec.model_copy(update=numbers)})
    monkeypatch.setattr("pusa_app.ui.form.cards", lambda: [own, card])
    for place in ("pusa_app.ui.choices", "pusa_app.ui.form", "pusa_app.checks"):
        monkeypatch.setattr(f"{place}.card_of", {own.id: own, card.id: card}.__getitem__)
    return card


def at(slot: int, path: str, noise: float = 0.2, **more: Any) -> Keyframe:
    return Keyframe(slot=slot, source=ImageSource(path=path), noise=noise, **more)


class Page:
    """A browser with the form: it holds what was chosen, and takes what the program sends."""

    def __init__(self, form: Form, chosen: Choices) -> None:
        self.form, self.chosen, self.basis = form, chosen, chosen.basis
        self.notice: str | None = None  # of the last answer; None where there was none

    def does(self, **changes: Any) -> Page:
        """Something is chosen or edited, and the program answers."""
        self.chosen = replace(self.chosen, **changes)
        answer = self.form._follow(self.basis, *(getattr(self.chosen, name) for name in NAMES))
        updates = dict(zip(self.form.followed_outputs, answer, strict=True))
        self.basis = updates[self.form.followed]
        self.editor = editor = updates[self.form.timeline]
        self.notice, self.sent = editor.get("notice"), editor.get("value")
        fields = {"frames": self.form.length, "more": self.form.more}
        fields |= {name: getattr(self.form, name) for name in ("gap_first", "gap_last")}
        news: dict[str, Any] = {} if self.sent is None else {"timeline": self.sent}
        for name, field in fields.items():
            update = updates[field]
            if not isinstance(update, dict):
                news[name] = update
            elif "value" in update:
                news[name] = update["value"]
        self.chosen = replace(self.chosen, **news)
        assert self.timeline == self.chosen.current()[0], "what is seen is what is run"
        return self

    @property
    def timeline(self) -> Timeline:
        assert self.chosen.timeline is not None
        return self.chosen.timeline

    def edits(self, *keyframes: Keyframe) -> Page:
        return self.does(timeline=self.timeline.having(*keyframes))

    def model(self, card: ModelCard) -> Page:
        spec = card.spec
        return self.does(model=card.id, frames=spec.num_frames, size=f"{spec.width}x{spec.height}")

    @property
    def slots(self) -> list[int]:
        return [keyframe.slot for keyframe in self.timeline.keyframes]


def page(form: Form, task: str, *keyframes: Keyframe, **given: Any) -> Page:
    """A form as it is first, with a task chosen and its files given."""
    begun = Page(form, replace(choices("text-to-video", prompt="a ball"), timeline=None))
    begun.basis = form.followed.value
    return begun.does(task=task, timeline=begun.chosen.blank().having(*keyframes), **given)


class TestEditor:
    """What it is told of the model."""

    def test_it_follows_the_model(self, form: Form, second: ModelCard) -> None:
        there = page(form, "keyframes")
        assert there.editor["slots_max"] == form.timeline.props["slots_max"] == 11
        assert there.editor["new_noise"] == form.timeline.props["new_noise"]
        there.model(second)
        assert there.editor["slots_max"] == 31
        assert there.editor["new_noise"] == {"first": 0.1, "middle": 0.5, "last": 0.4}
        assert there.model(testing.card()).editor["slots_max"] == 11

    def test_the_end_of_a_loop_closes_it_and_a_restyle_has_one_noise(self, form: Form, second: ModelCard) -> None:
        there = page(form, "loop").model(second)
        assert there.editor["new_noise"]["last"] == 0.25
        assert set(there.does(task="restyle").editor["new_noise"].values()) == {0.6}

    @pytest.mark.parametrize("task", [name for name in TASKS if name != "text-to-video"])
    @pytest.mark.parametrize("model", ["fake", "mini"])
    def test_a_new_keyframe_is_as_advised_in_its_place(self, task: str, model: str) -> None:
        card = testing.card() if model == "fake" else get_card("mini")
        noise, blank = of_model(task, card.spec)["new_noise"], card.spec.timeline(37)
        for place, slot in {"first": 0, "middle": 3, "last": 6}.items():
            for source in (ImageSource(path="a.png"), ClipSource(path="a.mp4")):
                (band,) = advise(task, blank.having(Keyframe(slot=slot, source=source, noise=noise[place]))).bands
                assert band.low <= noise[place] <= band.high, (place, source.kind)


class TestUndo:
    def test_past_a_change_of_model(self, form: Form, pictures: list[str], second: ModelCard) -> None:
        there = page(form, "keyframes", *(at(slot, path) for slot, path in zip((0, 2, 6), pictures, strict=True)))
        old = there.timeline
        there.model(second).does(timeline=old)
        assert there.sent is not None and there.notice and "another model" in there.notice
        assert (there.timeline.grid, there.timeline.width) == (second.spec.grid(81), 128)
        assert there.slots == [0, 7, 20] and there.chosen.frames == 81
        assert there.does().sent is None and there.notice is None

    def test_past_a_change_of_size(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "keyframes", at(0, pictures[0]))
        old = there.timeline
        there.does(size="128x64").does(timeline=old)
        assert (there.timeline.width, there.timeline.height) == (128, 64)
        assert there.notice and "another size" in there.notice

    def test_past_a_change_of_length_takes_the_length_back(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "keyframes", at(0, pictures[0]), at(6, pictures[1]))
        old = there.timeline
        there.does(frames=25)
        assert there.slots == [0, 4] and there.notice == "Keyframe 2 moved from slot 6 to 4."
        there.does(timeline=old)
        assert there.sent is None and there.notice is None and there.chosen.frames == 37 and there.slots == [0, 6]
        # As typed between two lengths.
        assert there.does(frames=38).sent is None and there.does().chosen.frames == 37
        there.does(frames=25, size="128x64").does(timeline=old)
        assert there.chosen.frames == 37 and there.slots == [0, 6] and there.timeline.width == 128

    def test_a_length_that_the_model_does_not_make(
        self, form: Form, pictures: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = page(form, "keyframes", at(0, pictures[0]))
        long = there.does(frames=61).timeline
        short = other(monkeypatch, temporal_stride=6, fps=12.0, num_frames=25, max_frames=25)
        there.model(short).does(timeline=long)
        assert there.chosen.frames == there.timeline.grid.num_frames == 25


class TestAnotherFrameRate:
    @pytest.mark.parametrize(
        ("fps", "gap", "expected"),
        [(16.0, (12, 23), (16, 31)), (24.0, (12, 23), (24, 47)), (6.0, (13, 18), (6, 9)), (16.0, (13, 59), (17, 79))],
    )
    def test_a_gap_stays_where_it_is_in_time(
        self,
        fps: float,
        gap: tuple[int, int],
        expected: tuple[int, int],
        form: Form,
        clip: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        there = page(form, "complete", clip=clip, gap_first=gap[0], gap_last=gap[1], frames=61)
        there.model(other(monkeypatch, fps=fps))
        assert (there.chosen.gap_first, there.chosen.gap_last) == expected
        assert there.notice == f"The gap is frames {expected[0]} to {expected[1]} now."
        assert there.timeline == there.chosen.built() and there.timeline.keyframes
        assert there.does().sent is None and (there.chosen.gap_first, there.chosen.gap_last) == expected

    def test_a_gap_ends_with_its_clip(self, form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """58 frames at 12 a second are 77 at 16: the last of them would be half a frame more."""
        with media.ClipWriter(tmp_path / "odd.mp4", 64, 64, 12) as writer:
            writer.write(np.full((58, 64, 64, 3), 90, np.uint8))
        there = page(form, "complete", clip=str(tmp_path / "odd.mp4"), gap_first=40, gap_last=57)
        there.model(other(monkeypatch))
        assert there.chosen.gap_last == media.count_frames(tmp_path / "odd.mp4", 16) - 1
        assert there.timeline.keyframes

    def test_frames_to_add_take_as_long(self, form: Form, clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
        there = page(form, "extend", clip=clip, more=40)
        there.model(other(monkeypatch))
        assert there.chosen.more == 53 and there.notice and there.notice.startswith("Frames to add: 53 now.")
        assert there.does().chosen.more == 53
        # A tab that has no use of them changes nothing of them.
        there.does(task="loop", clip=None).model(testing.card())
        assert there.chosen.more == 40 and "40" not in (there.notice or "")

    def test_no_gap_is_none_afterwards(self, form: Form, clip: str, second: ModelCard) -> None:
        there = page(form, "complete", clip=clip, gap_first=12, gap_last=None).model(second)
        assert (there.chosen.gap_first, there.chosen.gap_last) == (16, None)
        assert "gap" not in (there.notice or "")


def hand_made(timeline: Timeline) -> tuple[Keyframe, ...]:
    return tuple(k.model_copy(update={"noise": 0.3, "fit": "pad"}) for k in timeline.keyframes)


class TestMadeAnew:
    def test_beside_a_gap(self, form: Form, clip: str) -> None:
        for changes in ({"frames": 31}, {"gap_last": 19}, {"frames": 31, "gap_last": 20}):
            there = page(form, "complete", clip=clip, gap_first=13, gap_last=18)
            there.edits(*hand_made(there.timeline)).does(**changes)
            assert there.sent is not None and there.notice == strings.REMADE_KEPT
            assert [(set(k.noises), k.fit) for k in there.timeline.keyframes] == [({0.3}, "pad")] * 2
            plain = there.chosen.built().keyframes
            assert [k.slots for k in there.timeline.keyframes] == [k.slots for k in plain]

    def test_while_a_number_is_typed(self, form: Form, clip: str, pictures: list[str]) -> None:
        there = page(form, "complete", clip=clip, gap_first=13, gap_last=18)
        first, last = hand_made(there.timeline)
        old = there.edits(first, at(3, pictures[0], 0.5), last).timeline
        assert there.does(gap_last=1).timeline.keyframes == () and there.notice == strings.REMADE
        there.does(gap_last=19)
        assert there.notice == strings.REMADE_KEPT and there.slots == [0, 3, 5]
        assert [(set(k.noises), k.fit) for k in there.timeline.keyframes[::2]] == [({0.3}, "pad")] * 2
        there.does(gap_last=None).does(gap_last=1).does(gap_last=18)
        assert there.timeline == old

    def test_with_the_second_picture(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "start-end", image=pictures[0])
        first = there.timeline.keyframes[0].model_copy(update={"noise": 0.25, "focus": (0.0, 0.5)})
        middle = at(3, pictures[2], 0.5)
        there.edits(first, middle).does(end=pictures[1])
        assert there.timeline.keyframes[:2] == (first, middle) and there.slots == [0, 3, 6]
        assert there.timeline.keyframes[2] == there.chosen.built().keyframes[1], "with the noise that is advised"
        assert there.notice == strings.REMADE_KEPT

    def test_what_finds_no_place(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "start-end", image=pictures[0])
        mine = there.edits(*there.timeline.keyframes, at(6, pictures[2])).timeline
        there.does(end=pictures[1])
        assert there.slots == [0, 6] and there.notice == strings.REMADE
        assert there.does(timeline=mine).sent is None, "undo brings it back"

    def test_a_picture_in_the_place_of_another(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "image-to-video", image=pictures[0])
        there.edits(at(0, pictures[0], 0.7)).does(image=pictures[1])
        assert there.timeline == there.chosen.built() and there.notice == strings.REMADE

    @pytest.mark.parametrize("task", ["image-to-video", "start-end", "transition", "extend", "complete", "loop"])
    def test_what_nobody_touched_is_as_new(
        self, task: str, form: Form, pictures: list[str], clip: str, second: ModelCard
    ) -> None:
        files: dict[str, Any] = {"image": pictures[0], "clip": clip, "clip_b": clip}
        there = page(form, task, **files | ({"clip": None} if task == "loop" else {"gap_first": 13, "gap_last": 18}))
        for changes in ({"end": pictures[1]}, {"style": "cross"}, {"direction": "both"}, {"gap_last": 20}):
            there.does(**changes)
            assert there.timeline == there.chosen.built() and not there.notice
        there.does(task="restyle").does(task=task, direction="backwards")
        assert there.timeline == there.chosen.built() and not there.notice
        there.does(frames=31).does(task="text-to-video", frames=37).does(task=task)
        assert there.timeline == there.chosen.built() and not there.notice
        there.model(second).does(end=pictures[2], clip_b=None, clip=clip, size="128x128")
        assert "task" not in (there.notice or "")

    def test_a_recipe_that_fills_the_form(self, form: Form, clip: str) -> None:
        plain = page(form, "complete", clip=clip, gap_first=13, gap_last=18).chosen
        for own, notice in (
            (plain.built(), ""),
            (plain.built().having(*hand_made(plain.built())), strings.REMADE_KEPT),
        ):
            filled = dict(zip(form.filled, form.hold(replace(plain, timeline=own)), strict=True))
            there = Page(form, replace(plain, timeline=own))
            there.basis = filled[form.followed]
            assert isinstance(there.basis, Basis) and there.does().sent is None
            there.does(gap_last=19)
            assert there.notice == notice
            assert {k.fit for k in there.timeline.keyframes} == {k.fit for k in own.keyframes}


class TestAnotherTab:
    def test_keyframes_by_hand_are_there_again(self, form: Form, pictures: list[str]) -> None:
        mine = [at(0, pictures[0]), at(3, pictures[1], 0.35, fit="pad"), at(6, pictures[2])]
        there = page(form, "keyframes").edits(*mine)
        there.does(task="loop")
        assert there.slots == [] and there.notice == strings.REMADE
        there.does(task="text-to-video").does(task="keyframes")
        assert there.timeline.keyframes == tuple(mine) and there.notice == strings.REMADE_KEPT
        # At another length, too.
        there.does(task="loop", frames=25).does(task="keyframes")
        assert there.slots == [0, 3, 4] and there.timeline.keyframes[1] == mine[1]

    def test_what_was_given_meanwhile_goes_on(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "keyframes").edits(at(3, pictures[0]))
        there.does(task="image-to-video").does(image=pictures[1]).does(task="keyframes")
        assert there.slots == [0] and there.sent is None

    def test_a_file_that_is_gone(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "keyframes").edits(at(0, pictures[0]), at(3, pictures[1])).does(task="loop")
        Path(pictures[0]).unlink()
        assert there.does(task="keyframes").slots == [3]

    def test_other_tasks_have_theirs_too(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "start-end", image=pictures[0], end=pictures[1])
        mine = (at(0, pictures[0], 0.25, focus=(0.0, 0.5)), at(3, pictures[2], 0.5), at(6, pictures[1], 0.6))
        there.edits(*mine).does(task="text-to-video")
        assert there.notice == strings.REMADE
        there.does(task="start-end")
        assert there.timeline.keyframes == mine and there.notice == strings.REMADE_KEPT

    def test_what_a_task_could_not_do_with_does_not_come_back(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "text-to-video", at(0, pictures[0])).does(task="keyframes").does(task="text-to-video")
        assert there.slots == [] and there.notice == strings.REMADE
        assert there.does(task="keyframes").slots == [0]

    def test_a_task_that_goes_on_with_pictures_is_no_change(self, form: Form, pictures: list[str]) -> None:
        there = page(form, "start-end", image=pictures[0], end=pictures[1]).does(task="keyframes")
        assert there.slots == [0, 6] and there.sent is None
        assert there.does(task="loop", image=None).notice == ""

    def test_frames_to_add_stay_with_their_task(self, form: Form, clip: str, second: ModelCard) -> None:
        there = page(form, "extend", clip=clip, more=40)
        assert there.does(task="loop", clip=None).does(task="extend", clip=clip).chosen.more == 40
        assert there.does(task="restyle").chosen.more is None, "frames in all are another number"
        assert there.does(more=60).does(task="extend").chosen.more == 40
        assert there.does(task="restyle").chosen.more == 60
        assert there.model(second).does(task="extend").chosen.more == 53

    def test_a_choice_of_colours_stays(self, form: Form) -> None:
        card = testing.card()

        def chosen(before: str, name: str, held: bool) -> Any:
            event: Any = SimpleNamespace(task=name)
            answer = form._choose_task(before, card.id, 3.0, None, None, held, None, event)
            return dict(zip([form.guidance, *form.shape, *form._notes.values()], answer, strict=True))[form.color_match]

        assert chosen("text-to-video", "extend", False) is True
        assert chosen("extend", "text-to-video", True) is False
        assert chosen("extend", "loop", False) == chosen("text-to-video", "image-to-video", True) == gr.skip()
        # Gradio makes 0 of nothing when it first shows a number: it is told what it holds.
        at = form.shape.index(form.more)
        assert (
            form.shape_of("loop", card, more=40)[at]["value"] == 40 and form.shape_of("loop", card)[at]["value"] is None
        )
