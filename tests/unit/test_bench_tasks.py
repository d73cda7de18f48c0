"""The bench of the tasks: full marks for the truth, none for what clamping, freezing or starting anew would give."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pusa_app.backbones.fake import FakeBackbone
from pusa_app.bench import contests, quality, tasks, tracks
from pusa_app.bench.contest import (
    LINE,
    NEAR_VAE,
    OLD,
    OURS,
    TRUTH,
    VAE,
    Bench,
    Contest,
    Goal,
    Row,
    draw_specs,
    whole_rounds,
    with_new,
)
from pusa_app.bench.contests import CONTESTS, CURVED
from pusa_app.bench.replacement import Replacement, clean
from pusa_app.bench.tracks import View
from pusa_app.errors import UserError
from pusa_app.models import ModelCard
from pusa_app.timeline import TASKS, Given, Keyframe
from pusa_app.training.clips import COLORS, CYCLIC, DIRECTIONS, MOTIONS, ClipSpec, draw

SPECS = {spec.motion: spec for spec in draw_specs(len(MOTIONS))}


def moving(dx: float, dy: float = 0.0, frames: int = 37) -> ClipSpec:
    """A ball that starts in the middle and moves by dx, dy pixels a frame."""
    t = np.arange(frames, dtype=np.float32)
    spec = replace(SPECS["still"], shape="circle", color="red", background="black", gradient=False)
    return replace(
        spec, x=32 + dx * t, y=32 + dy * t, radius=np.full(frames, 12, np.float32), angle=np.zeros(frames, np.float32)
    )


def view(spec: ClipSpec) -> View:
    return View.of(draw(spec))


# --- the measures ----------------------------------------------------------------------------------------------------


def test_jumps_are_in_pixels_and_a_lost_object_has_jumped() -> None:
    even = view(moving(0.4))
    assert tracks.jump(even, 5) == pytest.approx(0.4, abs=0.05)
    assert tracks.leap(even, range(30)) == pytest.approx(0.4, abs=0.1)
    frames = even.frames.copy()
    frames[6:] = frames[36]  # leaps ahead and stands
    assert tracks.jump(View.of(frames), 5) == pytest.approx(0.4 * 31, abs=0.1)
    assert tracks.leap(View.of(frames), range(4, 8)) == tracks.jump(View.of(frames), 5)
    frames[6:] = frames[0, 0, 0]  # nothing left
    assert tracks.jump(View.of(frames), 5) == tracks.LOST
    assert tracks.jumps(View.of(frames), [1, 5]) == pytest.approx((tracks.jump(even, 1) + tracks.LOST) / 2)


def test_centre_error_is_the_distance_from_the_truth() -> None:
    truth = view(moving(0.4))
    assert tracks.off(truth, truth, range(37)) == 0
    frozen = View.of(np.repeat(truth.frames[:1], 37, axis=0))
    assert tracks.off(frozen, truth, (30,)) == pytest.approx(12, abs=0.1)


def test_length_and_direction_of_the_way() -> None:
    truth, back, still = view(moving(0.4)), view(moving(-0.4)), view(moving(0))
    assert tracks.way_share(truth, truth, range(37)) == 1
    assert tracks.way_share(still, truth, range(37)) == 0
    assert math.isnan(tracks.way_share(truth, still, range(37)))
    assert tracks.cosine(truth, truth, 10, 20) == pytest.approx(1)
    assert tracks.cosine(back, truth, 10, 20) == pytest.approx(-1)
    assert tracks.cosine(still, truth, 10, 20) == 0
    assert math.isnan(tracks.cosine(truth, still, 10, 20))
    empty = View.of(np.zeros_like(truth.frames))
    assert tracks.cosine(empty, truth, 10, 20) == 0


def test_slope_says_how_much_the_way_depends_on_its_end() -> None:
    full = np.array([12.0, 0.0])
    there, back, still = (view(moving(step)) for step in (12 / 36, -12 / 36, 0))
    assert tracks.slope(there, back, 18, full) == pytest.approx(1, abs=0.05)
    assert tracks.slope(still, still, 18, full) == 0
    assert tracks.slope(there, there, 18, full) == 0  # the same way to either end


def test_a_dissolve_shows_two_ghosts_and_a_centre_on_the_straight_line() -> None:
    spec = SPECS["right"]
    truth = view(spec)
    line = tracks.dissolve(truth, 0, 36)
    assert np.array_equal(line.frames[0], truth.frames[0])
    assert tracks.off(line, truth, range(12, 25)) < 0.3  # a straight way is the truth
    assert tracks.shape_held(truth, spec, (12, 18, 24)) == 1
    assert tracks.shape_held(line, spec, (12, 18, 24)) < 1
    around = view(SPECS["orbits clockwise"])
    assert tracks.off(tracks.dissolve(around, 0, 36), around, range(12, 25)) > 10
    closed = tracks.dissolve(View.of(around.frames[:36]), 24, 36)
    assert np.allclose(closed.track[30], (closed.track[24] + closed.track[0]) / 2)


@pytest.mark.parametrize("motion", CYCLIC)
def test_seam_and_pace_of_true_loops(motion: str) -> None:
    period = View.of(draw(SPECS[motion])[:36])
    assert tracks.seam(period) == pytest.approx(1, abs=0.6)
    if motion in CURVED:
        assert tracks.pace(period, range(30, 36)) == pytest.approx(1, abs=0.75)


def test_seams_that_stand_jump_or_have_a_frame_twice() -> None:
    frames = draw(SPECS["orbits clockwise"])
    assert tracks.seam(View.of(frames)) < 0.1  # 37 frames of a period of 36: the last is the first again
    assert tracks.seam(View.of(frames[:25])) > 3
    stopped = frames[:36].copy()
    stopped[30:] = stopped[0]
    assert tracks.pace(View.of(stopped), range(30, 36)) < 0.1
    # A clip that stands everywhere does not escape the row, and a tremble is no pace.
    assert tracks.pace(View.of(np.repeat(frames[:1], 36, axis=0)), range(30, 36)) == 0
    trembling = np.repeat(frames[:1], 36, axis=0)
    trembling[33] = frames[1]
    assert tracks.pace(View.of(trembling), range(30, 36)) < 20


def test_colours_of_object_and_background() -> None:
    spec = SPECS["left"]
    truth = view(spec)
    assert tracks.color_error(truth, spec, 20) == 0
    assert tracks.ground_error(truth, truth, 20) == 0
    darker = View.of((truth.frames * 0.8).astype(np.uint8))
    assert tracks.color_error(darker, spec, 20) > 10
    assert tracks.ground_error(darker, truth, 20) > 0
    assert tracks.color_held(truth, spec, (6, 18)) == 1
    assert tracks.color_held(truth, replace(spec, color="green" if spec.color != "green" else "red"), (6, 18)) == 0
    assert tracks.levels(truth, 3, 3) == 0


def test_a_lost_object_scores_worse_than_any_other_colour() -> None:
    specs = [replace(moving(0.4), color=color) for color in COLORS]
    views, empty = [view(spec) for spec in specs], View.of(np.zeros((37, 64, 64, 3), np.uint8))
    for wanted in specs:
        others = [tracks.color_error(other, wanted, 20) for other in views]
        assert tracks.color_error(empty, wanted, 20) > max(others)
    truth = views[0]
    flash = truth.frames.copy()
    flash[20] = 255  # no pixel of it counts as background
    assert tracks.ground_error(View.of(flash), truth, 20) == tracks.LOST_LEVELS


def test_the_detectors_know_every_motion_where_it_is_scored() -> None:
    for frames in (36, 37):
        for spec in draw_specs(len(MOTIONS), frames):
            if spec.motion in DIRECTIONS or spec.motion in CYCLIC:
                assert tracks.motion_right(view(spec), spec) == 1, (frames, spec.motion)


# --- replacement -----------------------------------------------------------------------------------------------------


class Listening(FakeBackbone):
    def velocity(self, z, sigma, texts):
        self.seen = z.clone(), sigma.clone()
        return [torch.ones_like(z) for _ in texts]


def test_replacement_gives_the_model_one_sigma_and_keyframes_with_as_much_noise() -> None:
    inner = Listening()
    z = torch.zeros(3, 4, 8, 8)
    z[:, 0] = 5
    Replacement(inner, 0).velocity(z, torch.tensor([0.0, 0.5, 0.5, 0.5]), [inner.encode_text("a")])
    seen, sigma = inner.seen
    assert sigma.tolist() == [0.5] * 4
    assert seen[:, 0].mean() == pytest.approx(2.5, abs=0.2)
    assert seen[:, 0].std() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(seen[:, 1:], z[:, 1:])


def test_the_noise_on_keyframes_is_that_of_the_run(tmp_path) -> None:
    inner = Listening()
    bench = bench_of(inner, tmp_path, 1)
    timeline = bench.timeline("image-to-video", {"image": bench.picture(draw(SPECS["left"])[0])})

    def noise(seed: int) -> torch.Tensor:
        bench.make("image-to-video", timeline, "", seed, OLD)  # one step: noise is all that the model sees
        return inner.seen[0][:, 0]

    assert torch.equal(noise(0), noise(0))
    assert not torch.allclose(noise(0), noise(1), atol=0.1)


def test_replacement_takes_clean_keyframes() -> None:
    timeline = FakeBackbone().spec.timeline(
        keyframes=(Keyframe(slot=0, source={"kind": "clip", "path": "a"}, noise=(0.0, 0.3), span=2),)
    )
    assert clean(timeline).noise_multipliers()[:2] == (0, 0)


# --- tables and goals ------------------------------------------------------------------------------------------------


def test_goals_ask_of_a_value_or_of_a_ratio() -> None:
    values = {OURS: 1.2, VAE: 1.0, LINE: 0.0}
    assert NEAR_VAE.met(values)
    assert not NEAR_VAE.met({OURS: 1.4, VAE: 1.0})
    assert not Goal(1, LINE).met(values)  # nothing to compare with
    assert Goal(1.1, least=True).met(values)
    assert not Goal(0.9, least=True).met({OURS: math.nan})


def test_a_row_knows_which_way_is_better() -> None:
    values = {"truth": [1.0], "ours": [0.9], "old": [1.3]}
    assert row_of("lower", **values).holds(OURS, OLD)
    assert not row_of("higher", **values).holds(OURS, OLD)
    for better in ("as truth", "spread as truth"):
        assert row_of(better, **values).holds(OURS, OLD)
        assert not row_of(better, **values).holds(OLD, OURS)


def row_of(better: str, goal: Goal | None = None, **clips: list[float]) -> Row:
    names = {"ours": OURS, "old": OLD, "truth": TRUTH, "vae": VAE}
    return Row.of("", better, {names[name]: values for name, values in clips.items()}, goal)


@pytest.mark.parametrize("better", ["as truth", "spread as truth"])
def test_half_too_little_and_half_too_much_is_not_as_the_truth(better: str) -> None:
    row = row_of(better, truth=[1.0] * 16, ours=[0.9] * 16, old=[0.0, 2.0] * 8)
    assert row.values == {TRUTH: 1, OURS: pytest.approx(0.9), OLD: 1}  # by the means replacement would win
    assert row.wins(OURS, OLD) and not row.holds(OLD, OURS)


def test_as_the_truth_is_clip_by_clip_and_a_spread_is_not() -> None:
    ways = [1.0, 2.0, 3.0, 4.0] * 4
    values = {"truth": ways, "ours": [way + 0.1 for way in ways], "old": ways[::-1]}
    assert row_of("as truth", **values).wins(OURS, OLD)
    assert row_of("spread as truth", **values).leads(OLD, OURS)


def test_clips_of_which_the_truth_has_no_value_do_not_count() -> None:
    for better in ("as truth", "spread as truth"):
        row = row_of(better, truth=[1.0, math.nan] * 8, ours=[1.1, 9.0] * 8, old=[1.5, 1.0] * 8)
        assert row.wins(OURS, OLD)
        row = row_of(better, truth=[math.nan] * 8, ours=[1.0] * 8, old=[2.0] * 8)
        assert not row.leads(OURS, OLD) and not row.wins(OURS, OLD)


def test_a_ratio_has_an_interval_over_the_same_clips_of_both() -> None:
    vae = [1.0, 2.0, 3.0, 4.0] * 6
    twice = row_of("lower", NEAR_VAE, ours=[2 * value for value in vae], vae=vae)
    assert twice.interval() == (pytest.approx(2), pytest.approx(2))  # by pairs; unpaired it would be wide
    rng = np.random.default_rng(0)
    row = row_of("lower", NEAR_VAE, ours=list(rng.normal(1.2, 0.4, 24)), vae=[1.0] * 24)
    low, high = row.interval()
    assert low < row.values[OURS] < high
    assert high - low == pytest.approx(2 * 1.645 * np.std(row.clips[OURS]) / math.sqrt(24), rel=0.1)
    assert row.interval() == (low, high)
    assert row_of("lower", NEAR_VAE, ours=[1.0], vae=[0.0]).interval() is None
    alone = row_of("lower", Goal(1), ours=[1.0, math.nan, 3.0])
    assert alone.interval() == (1, 3)
    contest = Contest("x", [], rows=[row])
    assert f"| x:  | {row.values[OURS]:.2f} | {low:.2f} to {high:.2f} | at most 1.3 of VAE's |" in tasks.goals_table(
        [contest]
    )
    assert tasks.figures([contest], 24)["goals"][0]["interval"] == (low, high)


def test_a_row_is_won_beyond_chance_only_where_most_clips_say_so() -> None:
    row = row_of("lower", ours=[1.0, 1.1, 0.9, 1.0] * 4, old=[1.5, 1.3, 1.6, 1.2] * 4)
    assert row.wins(OURS, OLD) and not row.wins(OLD, OURS)
    # One clip of twelve decides the means: nobody wins.
    row = row_of("lower", ours=[1.0] * 11 + [4.0], old=[1.1] * 12)
    assert not row.holds(OURS, OLD) and not row.wins(OLD, OURS) and not row.wins(OURS, OLD)
    row = row_of("as truth", truth=[1.0] * 9, ours=[0.9, 1.1, 1.0] * 3, old=[2.0, math.nan, 3.0] * 3)
    assert row.wins(OURS, OLD)
    assert not row_of("higher", ours=[1.0] * 5, old=[1.0] * 5).wins(OURS, OLD)  # equal is not better
    thirds = [1 / 3, 2 / 3, 1.0, 0.1]
    row = row_of("higher", ours=thirds * 3, old=sorted(thirds * 3))
    assert row.holds(OURS, OLD) and row.holds(OLD, OURS) and not row.leads(OLD, OURS)
    assert not row_of("lower", ours=[1.0]).wins(OURS, OLD)  # nothing is known of the other
    assert not row_of("lower", ours=[1.0] * 4, old=[2.0] * 4).wins(OURS, OLD)  # four clips prove nothing


def test_noise_is_rarely_beyond_chance() -> None:
    rng = np.random.default_rng(3)
    won = [
        row_of("lower", ours=list(rng.normal(size=count)), old=list(rng.normal(size=count))).wins(OURS, OLD)
        for count in (2, 4, 8, 16)
        for _ in range(60)
    ]
    assert sum(won) <= 14  # 6 are to be expected of 240
    assert not row_of("lower", ours=[math.nan] * 8, old=[1.0] * 8).leads(OLD, OURS)


def test_rows_that_replacement_wins_are_marked_and_counted() -> None:
    contest = Contest("x", [])
    contest.columns = {OURS: [], OLD: []}
    contest.rows = [
        row_of("lower", ours=[2.0] * 8, old=[1.0] * 8),
        row_of("lower", ours=[1.0] * 11 + [4.0], old=[1.1] * 12),
        row_of("lower", ours=[1.0] * 8, old=[2.0] * 8),
    ]
    assert [line.rpartition("|")[2] for line in tasks.table(contest).splitlines()[2:]] == [" <<", " <", ""]
    assert list(tasks.against([contest]).values()) == [3, 1, 1, 2, 1]
    assert "replacement 2, 1 of them beyond chance" in tasks.against_words([contest])


def test_a_contest_counts_what_it_measures() -> None:
    specs = [moving(0.4), moving(0)]
    contest = Contest("x", specs)
    for method in (TRUTH, OURS):
        contest.add(method, [draw(spec) for spec in specs])
    contest.row("share", "as truth", lambda v, t, _: tracks.way_share(v, t, range(37)))
    assert contest.rows[0].values == {TRUTH: 1, OURS: 1}  # the clip that stands does not count
    contest.row("jump", "lower", lambda v, _, __: tracks.jump(v, 0), Goal(0.1), without=(TRUTH,))
    assert TRUTH not in contest.rows[1].values
    assert tasks.goals([contest])[0][-1] is False
    assert "| x: jump | 0.20 | 0.00 to 0.40 | at most 0.1 | no |" in tasks.goals_table([contest])
    assert "| jump | lower | – | 0.20 |" in tasks.table(contest)


def test_held_out_clips_never_change() -> None:
    again = draw_specs(3)
    assert all(np.array_equal(draw(a), draw(b)) for a, b in zip(again, draw_specs(3), strict=True))


def test_a_contest_has_whole_rounds_of_its_motions_but_for_small_runs() -> None:
    assert [whole_rounds(clips, 6) for clips in (1, 2, 6, 7, 34)] == [1, 2, 6, 12, 36]


@pytest.mark.parametrize(
    "contest",
    [
        contests.image_to_video,
        contests.start_end,
        contests.keyframes,
        contests._forwards,
        contests._backwards,
        contests._chain,
        contests.complete,
        contests.transition,
        contests._loop_of_clip,
        contests._loop_of_picture,
        contests._loop_of_words,
        contests.restyle,
    ],
)
def test_every_contest_has_two_dozen_clips_by_default(contest, tmp_path, monkeypatch) -> None:
    class Begun(Exception):
        pass

    def make_all(self, task, specs, timelines, *_, **__):
        assert len(specs) == len(timelines)
        raise Begun(len(specs), {spec.motion for spec in specs})

    monkeypatch.setattr(Bench, "make_all", make_all)
    monkeypatch.setattr(Bench, "picture", lambda *_: Given(path="x.png"))
    monkeypatch.setattr(Bench, "clip", lambda _, frames: Given(path="x.mp4", frames=len(frames)))
    with pytest.raises(Begun) as begun:
        contest(bench_of(FakeBackbone(), tmp_path, 34))
    count, motions = begun.value.args
    times = contests.SPREAD if contest in (contests._loop_of_picture, contests._loop_of_words) else 1
    assert 24 * times <= count <= 36 * times and count % len(motions) == 0


def test_slopes_have_two_dozen_pairs_by_default(tmp_path, monkeypatch) -> None:
    seen = View.of(draw(moving(0.4)))
    monkeypatch.setattr(View, "of", lambda _: seen)
    monkeypatch.setattr(Bench, "picture", lambda *_: Given(path="x.png"))
    monkeypatch.setattr(Bench, "make", lambda *_: None)
    monkeypatch.setattr(Bench, "rebuilt", lambda *_: None)
    for row in contests._slopes(bench_of(FakeBackbone(), tmp_path, 34)):
        assert set(row.clips) == {TRUTH, VAE, OURS, OLD}
        assert all(len(values) >= 24 and len(values) % 4 == 0 for values in row.clips.values())


def test_kept_frames_are_put_back() -> None:
    own, other = np.zeros((5, 2, 2, 3), np.uint8), np.ones((5, 2, 2, 3), np.uint8)
    assert with_new(own, other, range(1, 3))[:, 0, 0, 0].tolist() == [0, 1, 1, 0, 0]


# --- whole runs ------------------------------------------------------------------------------------------------------


def bench_of(backbone: FakeBackbone, folder: Path, clips: int) -> Bench:
    card = ModelCard(id="fake", title="", summary="", licence="", folder=None, spec=backbone.spec, tasks=tuple(TASKS))
    return Bench(card, backbone, folder, clips, steps=1)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    return bench_of(FakeBackbone(), tmp_path_factory.mktemp("clips"), 2)


@pytest.mark.parametrize("task", CONTESTS)
def test_every_contest_runs_and_the_truth_gets_full_marks(task: str, fake: Bench) -> None:
    for contest in CONTESTS[task](fake):
        assert {TRUTH, VAE, OURS} <= set(contest.columns)
        sizes = {len(v.frames) for views in contest.columns.values() for v in views}
        assert len(sizes) == 1
        # A prompt does not tell the way of its clip, nor a picture how far something bounces or sways.
        spread = {row.what for row in contest.rows if row.better == "spread as truth"}
        if contest.name == "loop of a picture":
            assert spread == {"length of the way, px: bounces and sways"}
        else:
            assert bool(spread) == (contest.name == "loop of words")
        for row in contest.rows:
            truth = row.values[TRUTH]
            if row.what.startswith(("shape", "colour", "direction", "motion")):
                assert truth == 1 or math.isnan(truth), row.what
            if row.what.startswith(("centre", "background")):
                assert truth == 0 or math.isnan(truth), row.what
        assert tasks.table(contest).count("\n") == len(contest.rows) + 1


def test_loops_of_words_are_compared_where_they_are_made(fake: Bench) -> None:
    """What the loop has of its scene, the seam too, is the same by both methods."""
    contest = contests._loop_of_words(fake)
    compared = {row.what for row in contest.rows if OLD in row.values}
    assert not any("seam" in what or "last" in what for what in compared)
    kept = [row for row in contest.rows if "seam" in row.what or "last" in row.what]
    assert len(kept) == 4 and all(OURS in row.values for row in kept)
    assert {"frames", "motion"} < compared and len(compared) == 7
    lines = [line for line in tasks.table(contest).splitlines() if "at the seam" in line]
    assert len(lines) == 3 and all(line.endswith("| – |") for line in lines)


def test_the_gap_is_black_in_the_file(fake: Bench, monkeypatch) -> None:
    given = []
    clip = Bench.clip
    monkeypatch.setattr(Bench, "clip", lambda self, frames: given.append(frames) or clip(self, frames))
    CONTESTS["complete"](fake)
    assert all(frames[13:25].max() == 0 and frames[12].max() > 0 and frames[25].max() > 0 for frames in given)


@pytest.mark.parametrize("bench", [tasks, quality])
def test_what_cannot_be_written_is_refused_before_the_work(bench, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bench, "open_bench" if bench is tasks else "measure", lambda *_: pytest.fail("has begun"))
    (tmp_path / "file").write_text("mine")
    for option, path, said in (
        ("--json", tmp_path / "nowhere" / "x.json", "no folder"),
        ("--json", tmp_path, "is a folder"),
        ("--pictures", tmp_path / "file", "not a folder"),
        ("--pictures", tmp_path / "file" / "below", "not a folder"),
    ):
        with pytest.raises(UserError, match=said):
            bench.main([option, str(path)])
    assert (tmp_path / "file").read_text() == "mine"


def test_figures_of_tasks_that_were_measured_apart_can_be_joined(fake: Bench, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "open_bench", lambda *_: fake)

    def measured(*chosen: str) -> dict:
        file = tmp_path / "figures.json"
        tasks.main(["--clips", "2", *(w for task in chosen for w in ("--only", task)), "--json", str(file)])
        return json.loads(file.read_text())

    parts = [measured("image-to-video"), measured("keyframes", "keyframes")]
    joined = [
        Contest(name, [], rows=[Row(**row | {"goal": row["goal"] and Goal(**row["goal"])}) for row in rows])
        for part in parts
        for name, rows in part["contests"].items()
    ]
    again = json.loads(json.dumps(tasks.figures(joined, 2)))
    assert repr(again) == repr(measured("image-to-video", "keyframes"))  # as text: NaN equals NaN
    assert len(again["goals"]) == sum(len(part["goals"]) for part in parts) - 1  # the last is the share of all rows


@pytest.mark.slow
def test_mini_extends_better_than_replacement(tmp_path, capsys) -> None:
    file = tmp_path / "figures.json"
    options = ["--clips", "2", "--only", "extend", "--steps", "8"]
    code = tasks.main([*options, "--json", str(file), "--pictures", str(tmp_path)])
    figures = json.loads(file.read_text())
    assert code == (0 if all(goal["met"] for goal in figures["goals"]) else 1)
    rows = {row["what"]: row["values"] for row in figures["contests"]["extend forwards"]}
    assert rows["direction cosine over 6 frames"][OURS] >= 0.9
    assert rows["centre error at +12, px"][OURS] < rows["centre error at +12, px"]["restart"]
    assert (tmp_path / "extend-forwards.png").is_file()
    assert "| goal | reached | 90 % interval | asked | met |" in capsys.readouterr().out
