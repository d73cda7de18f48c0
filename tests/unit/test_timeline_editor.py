"""The timeline editor's value: to a Timeline and back, what it refuses, what it says of files."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import FileData
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pusa_app import media
from pusa_app.timeline import ClipSource, FrameGrid, ImageSource, Keyframe, Timeline
from pusa_app.ui.timeline_editor import EditorValue, TimelineEditor
from pusa_app.ui.timeline_editor import thumbs as thumbs_module
from pusa_app.ui.timeline_editor.editor import SCRIPTS, _script
from pusa_app.ui.timeline_editor.refit import refit
from pusa_app.ui.timeline_editor.thumbs import MAX_THUMBS, describe, look_at
from pusa_app.ui.timeline_editor.words import WORDS

GRID = FrameGrid(num_frames=37, temporal_stride=6, fps=12.0)
META = {"_type": "gradio.FileData"}
CONTEXT = {"validate_meta": True}  # as Gradio validates what comes from a page


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def picture(cache: Path) -> str:
    path = cache / "a" / "cat ${alert(1)} {{value}}.png"
    path.parent.mkdir()
    Image.new("RGB", (120, 90), (200, 30, 30)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def clip(cache: Path) -> str:
    path = cache / "bar.mp4"
    with media.ClipWriter(path, 64, 48, 12.0) as writer:
        writer.write(np.stack([np.full((48, 64, 3), 8 * n, np.uint8) for n in range(30)]))
    return str(path)


@pytest.fixture(scope="module")
def editor(cache: Path) -> TimelineEditor:
    return TimelineEditor()


def keyframe(path: str, **more: Any) -> dict[str, Any]:
    """As the page sends one."""
    return {"id": "a", "slot": 0, "noise": [0.2], "kind": "image", "file": {"path": path, "meta": META}} | more


def payload(*keyframes: dict[str, Any]) -> dict[str, Any]:
    return {"grid": GRID.model_dump(), "width": 64, "height": 64, "keyframes": list(keyframes)}


def sent(editor: TimelineEditor, value: dict[str, Any]) -> Timeline | None:
    """What Python gets when the page sends a value."""
    return editor.preprocess(EditorValue.model_validate(value, context=CONTEXT))


def shown(editor: TimelineEditor, timeline: Timeline) -> dict[str, Any]:
    """What the page gets when Python returns a timeline, as plain JSON."""
    value = editor.postprocess(timeline)
    assert value is not None
    return json.loads(value.model_dump_json())


unit = st.integers(0, 100).map(lambda n: n / 100)


@st.composite
def timelines(draw: st.DrawFn, picture: str, clip: str) -> Timeline:
    keyframes, slot = [], 0
    for _ in range(draw(st.integers(0, 5))):
        slot += draw(st.integers(0, 2))
        common = {"slot": slot, "fit": draw(st.sampled_from(["crop", "pad"])), "focus": (draw(unit), draw(unit))}
        if draw(st.booleans()):
            span = draw(st.integers(1, 4))
            noise = tuple(draw(st.lists(unit, min_size=span, max_size=span)))
            start = draw(st.integers(0, 6))
            end = draw(st.none() | st.integers(start + 1, 40))
            source = ClipSource(path=clip, start=start, begin=draw(st.integers(0, start)), end=end)
            noise = noise[0] if len(set(noise)) == 1 else noise
            keyframes.append(Keyframe(source=source, span=span, noise=noise, **common))
        else:
            keyframes.append(Keyframe(source=ImageSource(path=picture), noise=draw(unit), **common))
        slot += keyframes[-1].span
    return Timeline(grid=GRID, width=64, height=48, keyframes=tuple(keyframes))


@settings(max_examples=40)
@given(data=st.data())
def test_a_timeline_comes_back_as_it_was(editor: TimelineEditor, picture: str, clip: str, data: st.DataObject) -> None:
    timeline = data.draw(timelines(picture, clip))
    value = shown(editor, timeline)
    assert sent(editor, value) == timeline
    # The JSON of either is as good as the thing itself.
    assert editor.postprocess(value) == editor.postprocess(timeline)
    assert editor.postprocess(timeline.model_dump(mode="json")) == editor.postprocess(timeline)


def test_keyframes_are_in_order_of_time(editor: TimelineEditor, picture: str) -> None:
    """In the order in which they were added nobody sees them."""
    both = [Keyframe(slot=slot, source=ImageSource(path=picture), noise=0.2) for slot in (6, 0)]
    value = shown(editor, Timeline(grid=GRID, width=64, height=64, keyframes=tuple(both)))
    assert [k["slot"] for k in value["keyframes"]] == [6, 0]
    assert [k.slot for k in sent(editor, value).keyframes] == [0, 6]


def test_what_the_page_gets(editor: TimelineEditor, picture: str, clip: str) -> None:
    keyframes = (
        Keyframe(slot=0, source=ImageSource(path=picture), noise=0.2),
        Keyframe(slot=2, span=2, source=ClipSource(path=clip, start=3), noise=(0.1, 0.5)),
    )
    image, film = shown(editor, Timeline(grid=GRID, width=64, height=64, keyframes=keyframes))["keyframes"]
    assert (image["id"], film["id"]) == ("k1", "k2")
    assert image["file"]["path"] == picture and image["name"] == Path(picture).name
    assert (image["frames"], film["frames"]) == (1, 30)
    assert len(image["thumbs"]) == 1 and len(film["thumbs"]) == MAX_THUMBS
    assert all(t.startswith("data:image/jpeg;base64,") for t in image["thumbs"] + film["thumbs"])
    assert film["noise"] == [0.1, 0.5] and film["start"] == 3
    assert editor.postprocess(None) is None and editor.preprocess(None) is None


def test_a_trim_beyond_what_was_left_out_takes_it_in(editor: TimelineEditor, clip: str) -> None:
    source = ClipSource(path=clip, start=8, begin=5, end=20)
    timeline = Timeline(grid=GRID, width=64, height=64, keyframes=(Keyframe(slot=0, source=source),))
    value = shown(editor, timeline)
    assert {"begin": 5, "end": 20}.items() <= value["keyframes"][0].items()
    for start, begin, end in ((5, 5, 20), (19, 5, 20), (2, 2, 20), (25, 5, None)):
        value["keyframes"][0]["start"] = start
        back = sent(editor, value)
        assert back is not None
        assert back.keyframes[0].source == ClipSource(path=clip, start=start, begin=begin, end=end)


def test_edits_keep_the_part_of_a_clip_that_is_used() -> None:
    kept = in_node(
        """const grid = { num_frames: 61, temporal_stride: 6, fps: 12 };
        const use = { frames: 60, start: 8, begin: 5, end: 40 };
        const k = { id: 'a', kind: 'clip', slot: 3, span: 2, noise: [0, 0.1], ...use };
        const value = { grid, width: 64, height: 64, keyframes: [k] }, ids = new Set(['a']);
        const edits = [moved(value, ids, 2), stepped(value, k, 1), rightEndAt(value, k, 6)[0],
          leftEndAt(value, k, 2)[0], louder(value, [k], 0.2), withNoises(value, [k], [0.5, 0.6]),
          inserted(value, { ...k, id: 'b' }, 6)[0]];
        console.log(JSON.stringify(edits.map(v => [v.keyframes.at(-1).begin, v.keyframes.at(-1).end])));"""
    )
    assert kept == [[5, 40]] * 7


def test_files_elsewhere_are_copied_into_the_cache(editor: TimelineEditor, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "mine.png"
    Image.new("RGB", (10, 10)).save(path)
    timeline = Timeline(
        grid=GRID, width=64, height=64, keyframes=(Keyframe(slot=0, source=ImageSource(path=str(path))),)
    )
    value = shown(editor, timeline)
    copy_ = Path(value["keyframes"][0]["file"]["path"])
    assert copy_.is_relative_to(cache) and copy_.read_bytes() == path.read_bytes()
    path.unlink()
    with pytest.raises(gr.Error, match=r"mine\.png is no longer there"):
        editor.postprocess(timeline)


BAD = [
    ({"noise": [math.nan]}, "keyframes.0.noise"),
    ({"noise": [math.inf]}, "keyframes.0.noise"),
    ({"noise": [-0.1]}, "keyframes.0.noise"),
    ({"noise": [1.01]}, "keyframes.0.noise"),
    ({"noise": []}, "keyframes.0.noise"),
    ({"noise": 0.2}, "keyframes.0.noise"),
    ({"noise": [0.1, 0.2]}, "2 noise values for 1 slots"),
    ({"slot": -1}, "slot"),
    ({"slot": 10**12}, "slot"),
    ({"slot": 0.5}, "slot"),
    ({"span": 0}, "span"),
    ({"span": 10**9}, "span"),
    ({"span": 2, "noise": [0, 0]}, "a picture fills one slot"),
    ({"kind": "sound"}, "kind"),
    ({"kind": "clip", "start": -1}, "start"),
    ({"fit": "stretch"}, "fit"),
    ({"focus": [0.5]}, "focus"),
    ({"focus": [0.5, 2]}, "focus"),
    ({"id": ""}, "id"),
    ({"name": "x" * 300}, "name"),
    ({"file": None}, "file"),
    ({"file": {"path": "x"}}, "file"),
    ({"thumbs": ["https://example.org/spy.png"]}, "thumbs"),
    ({"thumbs": ["data:image/svg+xml;base64,AAAA"]}, "thumbs"),
    ({"thumbs": ["data:image/png;base64," + "A" * 50_000]}, "thumbs"),
]


@pytest.mark.parametrize(("change", "where"), BAD)
def test_a_bad_keyframe_is_one_sentence(
    editor: TimelineEditor, picture: str, change: dict[str, Any], where: str
) -> None:
    with pytest.raises(gr.Error) as caught:
        sent(editor, payload(keyframe(picture, **change)))
    message = str(caught.value.message)
    assert where in message and "\n" not in message and len(message) < 220 and not caught.value.print_exception


@pytest.mark.parametrize(
    "value",
    [
        "text",
        7,
        [],
        {},
        {"grid": {}},
        {"grid": {"num_frames": 38, "temporal_stride": 6, "fps": 12}, "width": 64, "height": 64},
        {"grid": {"num_frames": 37, "temporal_stride": 6, "fps": math.nan}, "width": 64, "height": 64},
        {"grid": GRID.model_dump(), "width": 0, "height": 64},
        {"grid": GRID.model_dump(), "width": 64, "height": 10**9},
        {"grid": GRID.model_dump(), "width": 64, "height": 64, "keyframes": [{}] * 1001},
    ],
)
def test_a_bad_value_is_one_sentence(editor: TimelineEditor, value: Any) -> None:
    with pytest.raises(gr.Error) as caught:
        sent(editor, value)
    assert str(caught.value.message).startswith("The timeline is not valid")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../etc/passwd", "{cache}/../x.png", "", "a\0b", "http://example.org/a.png"]
)
def test_only_uploaded_files_are_taken(editor: TimelineEditor, cache: Path, path: str) -> None:
    path = path.format(cache=cache)
    with pytest.raises(gr.Error) as caught:
        sent(editor, payload(keyframe(path)))
    assert "uploaded" in str(caught.value.message)
    assert describe([path, 12.0]) == {"problem": thumbs_module.NOT_UPLOADED}


def test_files_stay_where_they_are_and_a_lost_one_is_told(editor: TimelineEditor, picture: str, cache: Path) -> None:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    def move(path: str) -> str | None:
        # In a thread of its own: in this one Playwright's loop runs while browser tests are in the session.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(editor.async_move_resource_to_block_cache(path))).result()

    assert move(picture) == picture
    for path, words in (("/etc/passwd", "uploaded"), (str(cache / "gone.png"), "no longer there")):
        with pytest.raises(gr.Error, match=words):
            move(path)


@pytest.mark.parametrize(
    "data", [None, "x", [], ["a"], [1, 2], [None, 12], {"path": "/etc/passwd"}, ["/etc/passwd", 12, 13]]
)
def test_describe_answers_anything(cache: Path, data: Any) -> None:
    assert set(describe(data)) == {"problem"}


@pytest.mark.parametrize("fps", [None, "12", 0, -1, math.nan, math.inf, 1e9, True])
def test_describe_refuses_other_rates(picture: str, fps: Any) -> None:
    assert "frame rate" in describe([picture, fps])["problem"]


def test_describe(picture: str, clip: str, cache: Path) -> None:
    about = describe([picture, 12.0])
    assert (about["kind"], about["frames"], about["width"], about["height"]) == ("image", 1, 120, 90)
    about = describe([clip, 12.0])
    assert (about["kind"], about["frames"], about["width"], about["height"]) == ("clip", 30, 64, 48)
    assert about["seconds"] == pytest.approx(2.5)
    json.dumps(about)
    for fps in (5.0, 7.3, 12.0, 23.976, 30.0):
        frames = describe([clip, fps])["frames"]
        assert media.load_clip(clip, 8, 8, fps=fps, num_frames=frames).shape[0] == frames
    text = cache / "notes.txt"
    text.write_text("hello")
    torn = cache / "torn.png"
    torn.write_bytes(Path(picture).read_bytes()[:80])
    for path, words in (
        (text, "neither a picture nor a clip"),
        (torn, "damaged"),
        (cache / "no.png", "no longer there"),
    ):
        problem = describe([str(path), 12.0])["problem"]
        assert words in problem and "\n" not in problem


def test_a_long_clip_is_sampled_coarsely(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = look_at(clip, 12.0)
    monkeypatch.setattr(thumbs_module, "MAX_WHOLE", 10)
    coarse = look_at(clip, 12.5 - 0.5 + 1e-9)
    assert coarse.frames == exact.frames and 8 <= len(coarse.thumbs) <= MAX_THUMBS


def test_thumbnails_are_cached_until_the_file_changes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache / "twice.png"
    Image.new("RGB", (20, 10), "red").save(path)
    first = look_at(str(path), 12.0)
    assert look_at(str(path), 12.0) is first
    Image.new("RGB", (30, 10), "red").save(path)
    assert look_at(str(path), 12.0).width == 30


def test_a_kind_that_does_not_fit_is_told(editor: TimelineEditor, picture: str, clip: str) -> None:
    for source in (ImageSource(path=clip), ClipSource(path=picture)):
        timeline = Timeline(grid=GRID, width=64, height=64, keyframes=(Keyframe(slot=0, source=source),))
        with pytest.raises(gr.Error) as caught:
            editor.postprocess(timeline)
        assert "\n" not in str(caught.value.message)


def test_the_schema_says_what_a_value_is(editor: TimelineEditor) -> None:
    schema = editor.api_info()
    assert schema["type"] == "object" and "keyframes" in schema["properties"]
    assert isinstance(editor.example_value(), EditorValue)
    assert sent(editor, editor.example_payload()) is not None


def test_an_update_leaves_the_value_alone(editor: TimelineEditor) -> None:
    from gradio.blocks import postprocess_update_dict

    update = postprocess_update_dict(editor, {"notice": "shorter", "advice": {"text": "x"}, "readonly": True})
    assert update == {"__type__": "update", "props": {"notice": "shorter", "advice": {"text": "x"}, "readonly": True}}
    # An update of a part that was not seen yet takes its other props away: the script holds them too.
    assert '"slots_max": 28' in TimelineEditor(slots_max=28).js_on_load
    assert not hasattr(editor, "slot"), "a word in quotes in the script is no event"
    assert all(callable(getattr(editor, name)) for name in ("input", "take", "library_pick"))


def test_script_and_words_belong_together() -> None:
    script = _script()
    used = set(re.findall(r"say\('(\w+)'", script))
    assert used <= set(WORDS), f"without words: {used - set(WORDS)}"
    quoted = set(re.findall(r"'(\w+)'", script))
    assert set(WORDS) <= quoted, f"words that nobody says: {set(WORDS) - quoted}"
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script


def in_node(program: str) -> Any:
    """What a program says as JSON, with the script's model in scope."""
    if shutil.which("node") is None:
        pytest.skip("there is no node to run the model in")
    model = (Path(thumbs_module.__file__).parent / SCRIPTS[0]).read_text(encoding="utf-8")
    whole = f"const props = {{}}, DEFAULTS = {{}};\n{model}\n{program}"
    return json.loads(subprocess.run(["node", "-e", whole], capture_output=True, text=True, check=True).stdout)


def test_the_model_counts_as_python_does() -> None:
    """Frames of slots and noise multipliers, in the script and in pusa_app.timeline."""
    keyframes = (
        Keyframe(slot=0, span=2, source=ClipSource(path="a"), noise=(0.1, 0.4)),
        Keyframe(slot=4, source=ImageSource(path="b"), noise=0.3),
    )
    timeline = Timeline(grid=GRID, width=64, height=64, keyframes=keyframes)
    value = timeline.model_dump(mode="json")
    for entry, k in zip(value["keyframes"], keyframes, strict=True):
        entry["noise"] = list(k.noises)
    multipliers, frames, spans = in_node(
        f"""const value = {json.dumps(value)}, grid = value.grid, n = slotsOf(grid);
        const frames = Array.from({{ length: n }}, (_, s) => [firstFrame(grid, s), framesIn(grid, s, 1)]);
        const clip = {{ kind: 'clip', frames: 30, start: 3 }};
        console.log(JSON.stringify([multipliers(value), frames, [0, 1, 5].map(s => longestSpan(grid, clip, s))]));"""
    )
    assert multipliers == list(timeline.noise_multipliers())
    assert frames == [[GRID.frames_of(s)[0], len(GRID.frames_of(s))] for s in range(GRID.num_slots)]
    assert spans == [5, 4, 4]


def test_a_clip_fills_the_free_slots_as_far_as_it_goes() -> None:
    """Spans of clips of 60, 20 and 4 frames, from slots 0, 2 and 3 on; slot 5 is taken."""
    spans = in_node(
        """const taken = { id: 'a', kind: 'image', slot: 5, span: 1 };
        const value = { grid: { num_frames: 37, temporal_stride: 6, fps: 12 }, keyframes: [taken] };
        const clip = frames => ({ kind: 'clip', frames, start: 0 });
        const found = [60, 20, 4].map(frames => [0, 2, 3].map(slot => fillingSpan(value, clip(frames), slot)));
        console.log(JSON.stringify(found));"""
    )
    assert spans == [[5, 3, 2], [4, 3, 2], [1, 1, 1]]


@pytest.mark.parametrize(
    ("grid", "slots"),
    [
        (GRID, 7),
        (FrameGrid(num_frames=97, temporal_stride=8, fps=24.0), 10),
        (FrameGrid(num_frames=1, temporal_stride=4, fps=6.0), 5),
    ],
)
def test_slots_for_as_many_seconds(grid: FrameGrid, slots: int) -> None:
    found = in_node(f"console.log(JSON.stringify(slotsLike({grid.model_dump_json()}, {GRID.model_dump_json()})));")
    assert found == slots


def place(slot: int, span: int = 1, kind: str = "clip", **more: Any) -> dict[str, Any]:
    return {"slot": slot, "span": span, "noise": [0.1] * span, "kind": kind, "start": 0, "begin": 0, "end": None} | more


def test_keyframes_of_another_model_stay_at_their_second() -> None:
    """As remap does it; what starts at second 2 of its file does so at another frame rate."""
    before, after = GRID.model_dump(), {"num_frames": 73, "temporal_stride": 8, "fps": 24.0}
    places = [place(0, kind="image"), place(2, 2, start=24, begin=12, end=48), place(5, 1)]
    answer = refit([before, after, places])
    assert answer["keyframes"][0] == {"slot": 0, "span": 1, "noise": [0.1]}
    assert answer["keyframes"][1] == {"slot": 3, "span": 2, "noise": [0.1, 0.1], "start": 48, "begin": 24, "end": 95}
    assert "Keyframe 2 moved from slot 2 to 3." in answer["notes"]
    # A clip that was trimmed to frames before its part; one that fills no slot of the other model.
    assert refit([before, after, [place(0, start=2, begin=5)]])["keyframes"][0]["begin"] == 4
    short = refit([before, {"num_frames": 37, "temporal_stride": 12, "fps": 6.0}, [place(2), place(0, kind="image")]])
    assert short["keyframes"][0] is None and "left out" in short["notes"][0] and short["keyframes"][1] is not None


@pytest.mark.parametrize(
    "data",
    [
        None,
        [1],
        [GRID.model_dump(), GRID.model_dump(), [{}]],
        [GRID.model_dump(), {"num_frames": 38, "temporal_stride": 6, "fps": 12}, []],
        [GRID.model_dump(), GRID.model_dump() | {"num_frames": 6001}, []],
        [GRID.model_dump(), GRID.model_dump(), [place(0, 4), place(0, 4)]],
        [GRID.model_dump(), GRID.model_dump(), [place(0, 2, noise=[0.1])]],
        [GRID.model_dump(), GRID.model_dump(), [place(0, 2, "image")]],
        [GRID.model_dump(), GRID.model_dump(), [place(0, start=5, end=0)]],
    ],
)
def test_refit_answers_anything(data: Any) -> None:
    assert set(refit(data)) == {"problem"}


def test_no_edit_breaks_a_timeline() -> None:
    """Any row of edits: keyframes never overlap, leave the clip, run out of source frames or lack a noise."""
    program = """
    let seed = 7;
    const below = n => (seed = (seed * 48271) % 2147483647) % n;
    const grid = { num_frames: 6 * 11 + 1, temporal_stride: 6, fps: 12 };
    let value = { grid, width: 64, height: 64, keyframes: [] }, done = 0;
    const check = v => {
      const slots = Array(slotsOf(grid)).fill(0);
      for (const k of v.keyframes) {
        for (let s = k.slot; s < endOf(k); s++) slots[s]++;
        const used = framesIn(grid, k.slot, k.span);
        const whole = Number.isInteger(k.slot) && k.slot >= 0 && k.span >= 1 && k.noise.length === k.span
          && (k.kind === 'image' ? k.span === 1 : k.start >= 0 && k.start + used <= k.frames)
          && k.noise.every(x => x >= 0 && x <= 1);
        if (!whole) throw new Error('keyframe ' + JSON.stringify(k));
      }
      if (slots.length !== 12 || slots.some(n => n > 1)) throw new Error('overlap ' + JSON.stringify(v));
      if (multipliers(v).length !== 12) throw new Error('multipliers');
    };
    for (let i = 0; i < 6000; i++) {
      const k = value.keyframes[below(Math.max(1, value.keyframes.length))];
      const some = new Set(value.keyframes.filter(() => below(2)).map(x => x.id));
      const kind = below(2) ? 'image' : 'clip', frames = kind === 'image' ? 1 : 1 + below(40);
      const span = kind === 'image' ? 1 : 1 + below(4);
      const fresh = { id: newId(), kind, frames, start: 0, slot: 0, span, noise: Array(span).fill(0.2), file: {} };
      const edit = below(k ? 8 : 1);
      let next = value;
      if (edit === 0) next = inserted(value, fresh, below(12))[0] ?? value;
      if (edit === 1) next = moved(value, some, below(25) - 12);
      if (edit === 2) next = stepped(value, k, below(2) ? 1 : -1);
      if (edit === 3 && k.kind === 'clip') next = rightEndAt(value, k, below(14) - 1)[0];
      if (edit === 4 && k.kind === 'clip') next = leftEndAt(value, k, below(14) - 1)[0];
      if (edit === 5) next = louder(value, [k], (below(200) - 100) / 100, below(2) ? null : below(k.span));
      if (edit === 6) next = stepped(value, k, 1, -1);
      if (edit === 7 && !below(3)) next = { ...value, keyframes: value.keyframes.filter(x => x !== k) };
      check(next);
      if (next !== value) done++;
      value = next;
    }
    console.log(JSON.stringify(done));"""
    assert in_node(program) > 2000


def test_a_value_is_not_changed_by_reading_it(editor: TimelineEditor, picture: str) -> None:
    value = payload(keyframe(picture))
    before = copy.deepcopy(value)
    sent(editor, value)
    assert value == before and FileData(path=picture).path == picture


def test_the_measurement_needs_playwright(monkeypatch: pytest.MonkeyPatch) -> None:
    from pusa_app.bench import timeline
    from pusa_app.errors import UserError

    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(UserError) as caught:
        timeline.main(["--repetitions", "1"])
    assert str(caught.value) == timeline.NO_PLAYWRIGHT
