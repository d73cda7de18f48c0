"""The timeline editor's scripts on a page of a few lines: what is done in a row, what is hard to time in a browser."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright._impl._driver import compute_driver_executable

from pusa_app.ui.timeline_editor.editor import _script
from pusa_app.ui.timeline_editor.words import WORDS

PAGE = Path(__file__).with_name("editor_page.js")
NODE = compute_driver_executable()[0]  # Playwright brings its own, so it is wherever the tests are


def played(program: str, **given: Any) -> Any:
    """What a program returns, as JSON; in scope are the page, its `start`, and what is `given`."""
    page = f"{constants(SCRIPT=_script(), WORDS=WORDS)}\n{PAGE.read_text(encoding='utf-8')}"
    told = "told => { console.log(JSON.stringify(told)); process.exit(0); }"
    whole = f"{page}\n(async () => {{ {constants(**given)}\n{program} }})().then({told});"
    done = subprocess.run([NODE, "-"], input=whole, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def constants(**values: Any) -> str:
    return "\n".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())


@pytest.mark.parametrize("how", ["move", "noise", "focus", "abandoned"])
def test_a_file_that_is_there_during_a_drag_waits_for_its_end(how: str) -> None:
    during, page, python, undone = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        e.tap(e.card('b'));
        const adding = e('addFiles')([file('new.png')], 1);
        const grip = { noise: e("nodes.get('b').dots[0]"), focus: e.field('focus') }[how] ?? e.card('b');
        e.press(grip, { clientX: 400, clientY: 100 });
        if (how !== 'focus') e.move(450, 60);
        for (let i = 0; i < 9; i++) await soon();
        const during = [e.page(), e.python()].map(text => text.includes('new'));
        if (how === 'focus') { grip.dispatch('pointermove', { clientX: 10, clientY: 10 }); grip.dispatch('pointerup'); }
        else if (how === 'abandoned') { e.key(e.card('b'), 'Escape'); e.release(); }
        else { e.move(520, 60); e.release(); }
        await adding;
        const page = e.page(), python = e.python();
        e('undo()');
        return [during, page, python, e.page()];
        """,
        how=how,
    )
    assert during == [False, False], "nothing comes between the moves of a drag"
    assert page == python and "new@1" in page and page.count("@") == 3
    assert undone == page.replace(" new@1", ""), "the drag and the file are two steps"


def test_keys_and_buttons_rest_during_a_drag() -> None:
    page, python = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        e.press(e.card('b'), { clientX: 400 });
        e.move(500);
        for (const key of ['Delete', 'ArrowLeft']) e.key(e.card('b'), key);
        e.button('do-clear').click();
        e.move(520);
        e.release();
        return [e.page(), e.python()];
        """
    )
    assert page == python and page.startswith("a@0 b@") and page != "a@0 b@3"


def test_a_saved_timeline_takes_the_place_of_what_is_there_when_it_is_there() -> None:
    during, page, python, width = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        const loading = e('addFiles')([savedFile([image('s', 2)])]);
        e.update({ value: { ...timeline([image('a', 0)]), width: 128 } });
        e.press(e.card('a'), { clientX: 10 });
        e.move(300);
        for (let i = 0; i < 20; i++) await soon();
        const during = e.python();
        e.release();
        await loading;
        return [during, e.page(), e.python(), e('value.width')];
        """
    )
    assert during == "a@0" and page == python == "s@2"
    assert width == 128, "of the size that came meanwhile"


@pytest.mark.parametrize("where", ["card", "slot", "keys"])
def test_a_number_that_is_typed_is_for_the_keyframe_that_it_was_typed_for(where: str) -> None:
    noises, chosen = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        e.tap(e.card('a'));
        e.type('noise', '0.55');
        if (where === 'card') e.tap(e.card('b'));
        if (where === 'slot') e.tap(e('cells')[5].box);
        if (where === 'keys') e.tab('b');
        return [e.props.value.keyframes.map(k => k.noise[0]), [...e('chosen')]];
        """,
        where=where,
    )
    assert noises == [0.55, 0.2]
    assert chosen == ([] if where == "slot" else ["b"])


def test_numbers_for_several_slots_are_for_the_keyframes_that_they_were_typed_for() -> None:
    assert played(
        """
        const e = start([clip('a', 0, 2), clip('b', 3, 2)]), noises = () => e.props.value.keyframes.map(k => k.noise);
        e.tap(e.card('a'));
        e.type('level', '0.4');
        e.tap(e.card('b'));
        const level = noises();
        e.field('shape-list').click();
        const list = e.field('values');
        e.type('values', '0.1, 0.9');
        e.tap(e.card('a'));
        const values = noises();
        // A browser may tell of the change when the field is gone already.
        list.dataset.dirty = 'yes';
        list.value = '0.2, 0.3';
        list.dispatch('change');
        return [level, values, noises()];
        """
    ) == [[[0.4, 0.4], [0, 0]], [[0.4, 0.4], [0.1, 0.9]], [[0.4, 0.4], [0.2, 0.3]]]


def test_a_file_that_arrives_takes_the_keyframe_from_nobody_who_types() -> None:
    before, after = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        e.tap(e.card('a'));
        const adding = e('addFiles')([file('new.png')], 1);
        e.type('noise', '0.3');
        await adding;
        const before = [e.page(), [...e('chosen')], e.field('noise').value, e.props.value.keyframes[0].noise[0]];
        e.tap(e.card('b'));
        return [before, e.props.value.keyframes[0].noise[0]];
        """
    )
    assert before == ["a@0 new@1 b@3", ["a"], "0.3", 0.2] and after == 0.3


def test_what_the_page_holds_comes_onto_the_timeline_as_it_is_then() -> None:
    told = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        const questions = () => e.events.filter(([name]) => name !== 'input');
        const asked = () => questions().map(([name, { order, ...data }]) => [name, data]);
        const answer = (changes, notice = '') => {
          const { order } = questions().at(-1)[1];
          e.update({ placed: { order, ...changes }, notice });
          return soon().then(soon).then(soon);
        };
        const told = {};
        e("watched = { currentTime: 1.5, addEventListener() {}, removeEventListener() {} }");
        e('takeFrame()');
        e("order('library_pick', { id: 'x', slot: 4 }, 'Adding x')");
        told.asked = [asked(), e('waiting').textContent, e('cells')[1].box.classList.contains('te-pending')];
        e.key(e.card('b'), 'ArrowRight');
        e.tap(e.card('a'));
        e.key(e.card('a'), 'ArrowUp', { shiftKey: true });
        await answer({ path: '/c/frame-18.png', name: 'frame-18.png', slot: 1, noise: 0 });
        const noises = e.props.value.keyframes.map(k => k.noise[0]);
        told.frame = [e.page(), e.python(), noises[0], noises.at(-1)];
        told.next = asked().at(-1);
        await answer({ path: '/c/x.mp4', name: 'x.mp4', slot: 4, noise: 0 });
        told.clip = [e.python(), e.props.value.keyframes.at(-1).span, e('waiting').textContent];
        e('undo()');
        told.undone = e.python();
        e('takeFrame()');
        await answer({}, 'Choose one of its videos.');
        told.notice = [e.notice(), e('waiting').textContent];
        e.key(e.card('b'), 'ArrowLeft', { shiftKey: true });
        e('takeFrame()');
        await answer({}, 'Choose one of its videos.');
        told.again = e.notice();
        e.update({ placed: { order: '', path: '/c/library.png', name: 'library.png', slot: 0, noise: 0 } });
        await soon().then(soon);
        told.unasked = e.python();
        return told;
        """
    )
    assert told["asked"] == [[["take", {"slot": 1, "seconds": 1.5}]], "Taking the frame from the player Adding x", True]
    assert told["frame"] == ["a@0 frame-18@1 b@4", "a@0 frame-18@1 b@4", 0.25, 0], "nothing that was done is undone"
    assert told["next"] == ["library_pick", {"id": "x", "slot": 4}], "the next is asked when the one is there"
    assert told["clip"] == ["a@0 frame-18@1 b@4 x@5", 2, ""], "in as many slots as are free"
    assert told["undone"] == "a@0 frame-18@1 b@4"
    assert told["notice"] == ["Choose one of its videos.", ""] and told["again"] == told["notice"][0]
    assert told["unasked"] == "a@0 frame-18@1 library@2 b@4"


def test_copies_without_a_slot_are_counted() -> None:
    alerts = played(
        """
        const e = start([image('a', 0), image('b', 1), image('c', 2), image('d', 3), image('e', 4)]), alerts = [];
        e("chosen = new Set(['a', 'b', 'c'])");
        for (let i = 0; i < 2; i++) { e('duplicate()'); alerts.push([e.python().length, e.alert()]); }
        e.tap(e.card('a'));
        e('duplicate()');
        return [...alerts, e.alert()];
        """
    )
    assert alerts == [
        [len("a@0 b@1 c@2 d@3 e@4 a@5 b@6"), "1 of 3 copies did not fit into the free slots."],
        [len("a@0 b@1 c@2 d@3 e@4 a@5 b@6"), "2 of 2 copies did not fit into the free slots."],
        "Every slot is taken: delete a keyframe or make the clip longer.",
    ]


def test_a_file_that_cannot_be_added_keeps_no_other_out() -> None:
    page, alert, single, full = played(
        """
        const e = start([image('a', 0)]), describe = DESCRIBE;
        DESCRIBE = async (path, fps) =>
          path.includes('torn') ? { problem: 'torn.png is damaged.' } : describe(path, fps);
        await e('addFiles')([file('torn.png'), file('one.png'), file('notes.txt', 'text/plain'), file('two.png')]);
        const alert = [e.python(), e.alert()];
        await e('addFiles')([file('torn.png')]);
        const single = e.alert();
        await e('addFiles')(['3', '4', '5', '6', '7', '8'].map(n => file(`${n}.png`)));
        return [...alert, single, [e.python(), e.alert()]];
        """
    )
    assert page == "a@0 one@1 two@2"
    assert alert == "Not added: torn.png, notes.txt. torn.png is damaged. notes.txt is neither a picture nor a clip."
    assert single == "torn.png is damaged."
    assert full[0].endswith("3@3 4@4 5@5 6@6")
    assert full[1] == "Not added: 7.png, 8.png. Every slot is taken: delete a keyframe or make the clip longer."


ELSEWHERE = """
    const e = start([image('a', 0)], {
      grid: { num_frames: 97, temporal_stride: 8, fps: 24 }, props: { slots_max: most },
      server: { refit: async (...asked) => { e.asked = asked; return answer; } },
    });
    """
HERE = {"slot": 3, "span": 2, "noise": [0, 0], "start": 48, "begin": 0, "end": None}


@pytest.mark.parametrize(("most", "slots"), [(13, 10), (6, 6)])
def test_a_timeline_that_was_saved_for_another_model_keeps_its_seconds(most: int, slots: int) -> None:
    kept, notice, asked = played(
        ELSEWHERE
        + """
        await e('addFiles')([savedFile([clip('c', 2, 2, { start: 24 }), clip('d', 5, 1)])]);
        return [e.props.value, e.notice(), e.asked];
        """,
        answer={"keyframes": [HERE, None], "notes": ["Keyframe 1 moved from slot 2 to 3."]},
        most=most,
    )
    assert kept["grid"] == {"num_frames": 8 * (slots - 1) + 1, "temporal_stride": 8, "fps": 24}
    assert [(k["slot"], k["span"], k["start"], k["frames"]) for k in kept["keyframes"]] == [(3, 2, 48, 120)]
    assert asked[1] == kept["grid"] and asked[0]["fps"] == 12 and [p["start"] for p in asked[2]] == [24, 0]
    assert notice.startswith("t.json is loaded. It was saved for another model")
    assert ("shortened to the 6 slots" in notice) == (slots < 10)
    assert notice.endswith("Keyframe 1 moved from slot 2 to 3.")


@pytest.mark.parametrize("fps", [{}, {"fps": 24}])
def test_a_timeline_of_the_same_clock_is_loaded_as_it_is(fps: dict[str, Any]) -> None:
    kept, notice = played(
        ELSEWHERE
        + """
        await e('addFiles')([savedFile([clip('c', 2, 2, { start: 24 })], grid)]);
        return [e.props.value.keyframes, e.notice() + e.alert()];
        """,
        answer={"problem": "never asked"},
        most=13,
        grid={"num_frames": 97, "temporal_stride": 8, **fps},
    )
    assert [(k["slot"], k["span"], k["start"]) for k in kept] == [(2, 2, 24)] and notice == "t.json is loaded."


def test_a_copy_is_pasted_into_another_model_at_its_second() -> None:
    pasted, notice, undone = played(
        ELSEWHERE
        + """
        const here = e.props.value;
        e.update({ value: timeline([clip('c', 2, 2, { start: 24 })]) });
        e.tap(e.card('c'));
        e.card('c').dispatch('copy', { clipboardData: { setData() {} } });
        e.update({ value: here });
        e.card('a').dispatch('paste', { clipboardData: { files: [] } });
        for (let i = 0; i < 20; i++) await soon();
        const pasted = e.props.value.keyframes.at(-1), notice = e.notice();
        e('undo()');
        return [pasted, notice, e.python()];
        """,
        answer={"keyframes": [HERE], "notes": ["Keyframe 1 moved from slot 2 to 3."]},
        most=13,
    )
    assert (pasted["slot"], pasted["span"], pasted["start"], pasted["frames"]) == (1, 2, 48, 120)
    assert notice.startswith("The copies are fitted to this model") and undone == "a@0"


def test_a_taken_slot_says_what_is_there() -> None:
    words, chosen, by_key, free = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        e.tap(e('cells')[3].box);
        const words = e.inspector();
        e.button('choose-it').click();
        const chosen = [...e('chosen')];
        e.tap(e('cells')[3].box);
        e.key(e('cells')[3].box, 'Enter');
        const key = [[...e('chosen')], document.activeElement === e.card('b')];
        e.tap(e('cells')[4].box);
        return [words, chosen, key, e.inspector()];
        """
    )
    assert words == "Slot 3, frames 13 to 18: b.png is here. Choose it"
    assert chosen == ["b"] and by_key == [["b"], True]
    assert "free" in free and "Add here" in free


def test_several_keyframes_are_chosen_by_keys_and_by_touch() -> None:
    keys, touch = played(
        """
        const e = start([image('a', 0), image('b', 2), image('c', 4), image('d', 6)]), told = [];
        const look = () => told.push([...e('chosen')].join(''));
        const tab = id => { e.tab(id); look(); };
        const space = id => { e.key(e.card(id), ' '); look(); };
        tab('a'); space('a'); tab('b'); tab('c'); space('c'); space('d'); space('d');
        e.key(e.card('c'), 'ArrowRight');
        const moved = e.python();
        e.key(e.card('c'), 'Escape');
        tab('b');
        const keys = [told.splice(0), moved];
        e.tap(e.card('a')); look();
        e.button('several').click();
        e.tap(e.card('b')); e.tap(e.card('d')); look();
        const pressed = e.button('several').getAttribute('aria-pressed');
        e.tap(e.card('b')); look();
        e.button('several').click();
        e.tap(e.card('b')); look();
        return [keys, [told, pressed]];
        """
    )
    assert keys == [["a", "a", "a", "a", "ac", "acd", "ac", "b"], "a@1 b@2 c@5 d@6"]
    assert touch == [["a", "abd", "ad", "b"], "true"]


def test_rows_of_choices_have_a_name() -> None:
    names = played(
        """
        const e = start([clip('a', 0, 2)]);
        e.tap(e.card('a'));
        return e('inspector').querySelectorAll('.te-segments').map(node => node.getAttribute('aria-label'));
        """
    )
    assert names == ["Fit", "Noise"]


# Python fits what is of another model to the one that is chosen, as the form does.
FITTING = """
    const B = { num_frames: 81, temporal_stride: 4, fps: 16 }, later = () => new Promise(go => setTimeout(go, 5));
    const fitted = given => ({ ...given, grid: B, keyframes: given.keyframes.map((k, i) =>
      ({ ...k, id: `k${i + 1}`, slot: Math.round(k.slot / 6 * 20) })) });
    const answer = async () => {
      while (e.props.value.grid.fps !== B.fps) {
        e.update({ value: fitted(e.props.value), notice: 'It is fitted.' });
        await later();
      }
    };
    const e = start([image('a', 0)]);
    const add = k => e('change')({ ...e('value'), keyframes: [...e('value.keyframes'), k] });
    add(image('b', 3));
    add(image('c', 6));
    e.update({ value: fitted(e('value')), notice: 'It is fitted.' });
    const go = async way => { e(`${way}()`); await answer(); return e.page(); };
    """


def test_undo_goes_on_past_a_change_of_the_model() -> None:
    pages, history, told = played(
        FITTING
        + """
        const pages = [];
        for (const way of ['undo', 'undo', 'undo', 'redo', 'redo', 'redo', 'undo']) pages.push(await go(way));
        return [pages, [e('past.length'), e('future.length')], e.notice()];
        """
    )
    assert pages == ["a@0 b@10", "a@0", "a@0", "a@0 b@10", "a@0 b@10 c@20", "a@0 b@10 c@20", "a@0 b@10"]
    assert history == [1, 1] and told == ""


def test_undo_waits_for_what_python_makes_of_a_timeline_of_another_model() -> None:
    hasty, pages = played(
        FITTING
        + """
        e('undo()');
        e('undo()');
        const hasty = e.page();
        await answer();
        return [hasty, [e.page(), await go('undo'), await go('redo'), await go('redo')]];
        """
    )
    assert hasty == "a@0 b@3 c@6" and pages == ["a@0 b@10", "a@0", "a@0 b@10", "a@0 b@10 c@20"]


def test_undo_goes_on_past_a_change_to_a_model_of_shorter_clips() -> None:
    pages, slots = played(
        """
        const short = keyframes => timeline(keyframes, { num_frames: 25 }), e = start([image('a', 0)]), pages = [];
        e('change')(timeline([image('a', 0), image('b', 3)]));
        e('change')(timeline([image('a', 0), image('b', 4)]));
        e.update({ value: short([image('a', 0), image('b', 4)]), slots_max: 5 });
        for (const way of ['undo', 'undo', 'redo', 'redo']) {
          e(`${way}()`);
          while (e.props.value.grid.num_frames !== 25) {
            e.update({ value: short(e.props.value.keyframes) });
            await new Promise(go => setTimeout(go, 5));
          }
          pages.push(e.page());
        }
        return [pages, e('geo.slots')];
        """
    )
    assert pages == ["a@0 b@3", "a@0", "a@0 b@3", "a@0 b@4"] and slots == 5


@pytest.mark.parametrize("edits", [False, True])
def test_what_is_no_answer_to_an_undo_is_a_step_of_its_own(edits: bool) -> None:
    pages = played(
        """
        const e = start([image('a', 0)]);
        e('change')(timeline([image('a', 0), image('b', 3)]));
        e('undo()');
        if (edits) e.key(e.card('a'), 'ArrowRight');
        const before = e.page();
        e.update({ value: timeline([image('p', 2)], { num_frames: 31 }) });
        e('undo()');
        return [before, e.page()];
        """,
        edits=edits,
    )
    assert pages == ["a@1" if edits else "a@0"] * 2


def test_a_file_of_a_kind_that_browsers_do_not_know_comes_back_from_a_saved_timeline() -> None:
    names, alert = played(
        """
        const uploaded = [], describe = DESCRIBE;
        globalThis.File = class { constructor(parts, name) { this.name = name; uploaded.push(name); } };
        DESCRIBE = async (path, fps) => path.startsWith('/gone') ? { problem: 'gone' } : describe(path, fps);
        const e = start([]), saved = type => {
          const { id, thumbs, frames, ...k } = image('a', 0, { name: 'a.tif', file: '/gone/a.tif' });
          const files = { '/gone/a.tif': `data:${type};base64,AAAA` };
          const whole = { pusa_timeline: 1, grid: GRID, keyframes: [k], files };
          return file('t.json', 'application/json', JSON.stringify(whole));
        };
        for (const type of ['image/png', 'application/octet-stream', 'text/html']) await e('addFiles')([saved(type)]);
        return [uploaded, e.alert()];
        """
    )
    assert names == ["a.tif", "a.tif"] and alert == "a.tif is neither in t.json nor on this machine."


def test_a_copy_that_is_shorter_says_so() -> None:
    cut, ends, both, whole = played(
        """
        const told = (keyframes, ids) => {
          const e = start(keyframes);
          e('chosen = new Set(' + JSON.stringify(ids) + ')');
          e('duplicate()');
          return [e.page(), e.props.value.keyframes.at(-1).span, e.alert()];
        };
        return [
          told([clip('c', 1, 4), image('x', 6)], ['c']),
          told([clip('c', 0, 3, { frames: 13 })], ['c']),
          told([clip('c', 1, 3), image('x', 4), image('y', 5)], ['c', 'x', 'y']),
          told([clip('c', 1, 3)], ['c']),
        ];
        """
    )
    short = "Only {} of the {} slots of c.mp4 had room: make more behind it and drag its end."
    assert cut == ["c@1 c@5 x@6", 1, short.format(1, 4)]
    assert ends == ["c@0 c@3", 2, "c.mp4 ends here: it has 13 frames."]
    assert both[2] == "1 of 3 copies did not fit into the free slots. " + short.format(1, 3)
    assert whole == ["c@1 c@4", 3, ""]


def test_what_is_chosen_stays_so_when_python_numbers_keyframes_anew() -> None:
    chosen, words, focus, page = played(
        """
        const e = start([image('k1', 3), image('k2', 0, { file: { path: '/c/k1.png', url: '' } }), image('n', 5)]);
        const named = (id, slot, name) =>
          image(id, slot, { name: `${name}.png`, file: { path: `/c/${name}.png`, url: '' } });
        e.card('k1').focus();
        e("choose(['k1', 'n'])");
        // The picture k1 is at slots 0 and 3 here, and `n` is left out.
        const next = [named('k1', 0, 'k1'), named('k2', 1, 'z'), named('k3', 4, 'k1')];
        e.update({ value: timeline(next, { num_frames: 31 }) });
        const chosen = [...e('chosen')].map(id => e('value').keyframes.find(k => k.id === id).slot);
        const words = e.inspector(), ids = e('value.keyframes').map(k => k.id);
        e.key(document.activeElement, 'ArrowLeft');
        const page = e.page();
        e.key(document.activeElement, 'Delete');
        return [chosen, words, new Set(ids).size, [page, e.page()]];
        """
    )
    assert chosen == [4] and "k1.png picture slot 4" in words and focus == 3
    assert page == ["k1@0 z@1 k1@3", "k1@0 z@1"]


@pytest.mark.parametrize("name", ["noise", "slot"])
def test_escape_puts_back_what_a_field_showed(name: str) -> None:
    shown, typed, left = played(
        """
        const e = start([image('a', 0), image('b', 3)]);
        e.tap(e.card('b'));
        const before = e.field(name).value;
        e.type(name, '0.9');
        e.key(e.field(name), 'Escape');
        const first = [e.field(name).value === before, document.activeElement === e.field(name), [...e('chosen')]];
        e.key(e.field(name), 'Escape');
        return [first, [e.python(), e.props.value.keyframes[1].noise, e('past.length')], [...e('chosen')]];
        """,
        name=name,
    )
    assert shown == [True, True, ["b"]] and typed == ["a@0 b@3", [0.2], 0] and left == []


@pytest.mark.parametrize("how", ["added", "placed"])
def test_a_new_keyframe_has_the_noise_that_is_advised_for_its_place(how: str) -> None:
    by_place, by_number, given = played(
        """
        const grown = async (new_noise, more = {}) => {
          const e = start([image('x', 2)], { props: { new_noise } });
          for (const [name, slot] of [['a.png', 0], ['b.png', 2], ['c.png', 6], ['d.mp4', 4]]) {
            const order = { order: '', path: `/c/${name}`, name, slot, at: name, ...more };
            if (how === 'placed') e.update({ placed: order }); else await e('addFiles')([file(name)], slot);
            for (let i = 0; i < 9; i++) await soon();
          }
          return inOrder(e.props.value).filter(k => k.name !== 'x.png').map(k => [k.name[0], k.slot, k.noise]);
        };
        return [await grown({ first: 0.1, middle: 0.5, last: 0.4 }), await grown(0.2), await grown(0.2, { noise: 0 })];
        """,
        how=how,
    )
    assert by_place == [["a", 0, [0.1]], ["b", 3, [0.5]], ["d", 4, [0.1, 0.1]], ["c", 6, [0.4]]]
    assert [noise for _, _, noise in by_number] == [[0.2], [0.2], [0.2, 0.2], [0.2]]
    noise = 0 if how == "placed" else 0.2
    assert [noises for _, _, noises in given] == [[noise], [noise], [noise, noise], [noise]]


def test_how_many_slots_a_model_takes_may_change() -> None:
    assert played(
        """
        const e = start([image('a', 0)], { props: { slots_max: 5 } }), told = [];
        for (const slots_max of [5, 7, 6]) {
          e.update({ slots_max });
          await e('addFiles')([savedFile([image('s', 6)])]);
          told.push([e.page(), e.alert()]);
        }
        return told;
        """
    ) == [
        ["a@0", "t.json has 7 slots, but this model takes at most 5."],
        ["s@6", ""],
        ["s@6", "t.json has 7 slots, but this model takes at most 6."],
    ]
