"""Every task through render with the fake model: exact frames in the right order, and nothing left behind.

The painter writes into the top of each frame which part and which frame of it that is; below, free slots have a colour
of their part and slot, and keyframes what they show.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pusa_app import media
from pusa_app.backbones.fake import FAKE_SPEC, FakeBackbone
from pusa_app.errors import MediaError, RecipeError, RunCancelled
from pusa_app.events import Progress
from pusa_app.render import render
from pusa_app.studio import given_clip
from pusa_app.timeline import ClipSource, Given, Keyframe, Options, PartSource, Recipe, get_task, plan_of

MARKED = 8  # rows at the top: one block of the fake VAE


class Painter(FakeBackbone):
    """Part k, slot f is of the colour (4k, 8f, 80); `cast` is taken off every level that it decodes."""

    def __init__(self, cast: int = 0, fail_at: int | None = None) -> None:
        super().__init__(fail_at=fail_at)
        self.part, self.cast = 0, cast
        self.latents: list[torch.Tensor] = []

    def velocity(self, z, sigma, texts):
        super().velocity(z, sigma, texts)
        slots = torch.arange(z.shape[1])
        colour = torch.stack([torch.full_like(slots, 4 * self.part), 8 * slots, torch.full_like(slots, 80)])
        target = (colour / 127.5 - 1)[:, :, None, None]
        sigma = sigma[:, None, None]
        return [torch.where(sigma > 0, (target - z) / sigma.clamp(min=1e-6), 0.0) for _ in texts]

    def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
        self.latents.append(z)
        at = 0
        for frames in super().decode(z):
            marked = np.clip(frames.astype(int) - self.cast, 0, 255).astype(np.uint8)
            for frame in marked:
                frame[:MARKED] = self.part, at, 0
                at += 1
            yield marked
        self.part += 1


def marks(frames: np.ndarray) -> list[tuple[int, int]]:
    """(part, frame of it) of each frame, as written into its top."""
    return [(int(f[0, 0, 0]), int(f[0, 0, 1])) for f in frames]


def write_clip(path: Path, num_frames: int, seed: int = 0, size: tuple[int, int] = (80, 64)) -> str:
    """A clip in which every frame is another, but much like those beside it; lossless but for the colour space."""
    random = np.random.default_rng(seed)
    still = random.integers(60, 180, (1, 4, 5, 3))
    tiles = still + random.integers(-9, 9, (num_frames, 4, 5, 3))
    frames = tiles.astype(np.uint8).repeat(size[1] // 4, axis=1).repeat(size[0] // 5, axis=2)
    with media.ClipWriter(path, *size, 12, quality=0) as writer:
        writer.write(frames)
    return str(path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sources")
    Image.new("RGB", (80, 60), (220, 30, 60)).save(folder / "red.png")
    Image.new("RGB", (80, 60), (20, 130, 60)).save(folder / "green.png")
    return {
        "clip": write_clip(folder / "a.mp4", 40),
        "clip_b": write_clip(folder / "b.mp4", 31, seed=1, size=(60, 64)),
        "long": write_clip(folder / "long.mp4", 120, seed=2),
        "image": str(folder / "red.png"),
        "end": str(folder / "green.png"),
    }


def recipe(task: str, given: dict[str, str], num_frames: int = 37, color_match: bool = False, **options) -> Recipe:
    made, chosen = get_task(task), Options(**options)
    things = {name: given_clip(path, 12) if path.endswith(".mp4") else Given(path=path) for name, path in given.items()}
    timeline = made.timeline(FAKE_SPEC.timeline(num_frames), things, chosen)
    return Recipe(
        task=task, timeline=timeline, options=chosen, steps=2, guidance=1, seed=7, prompt="x", color_match=color_match
    )


def original(path: str) -> np.ndarray:
    return media.load_clip(path, 64, 64, fps=12, num_frames=media.count_frames(path, 12))


CASES = {
    "text-to-video": ((), {}, 37),
    "image-to-video": (("image",), {}, 37),
    "start-end": (("image", "end"), {}, 37),
    "transition": (("clip", "clip_b"), {}, 40 + 31 + 37 - 13 - 12),
    "transition made": (("clip", "clip_b"), {"result": "made"}, 37 - 13 - 12),
    "transition cross": (("clip", "clip_b"), {"style": "cross"}, 40 + 31 + 37 - 19 - 18),
    "transition cross made": (("clip", "clip_b"), {"style": "cross", "result": "made"}, 37),
    "loop words": ((), {}, 36),
    "loop picture": (("image",), {}, 36),
    "loop clip": (("clip",), {}, 40 + 12),
    "loop clip made": (("clip",), {"result": "made"}, 12),
    "extend": (("clip",), {}, 40 + 24),
    "extend little": (("clip",), {"frames": 1}, 41),
    "extend far": (("clip",), {"frames": 100}, 140),
    "extend made": (("clip",), {"frames": 100, "result": "made"}, 100),
    "extend backwards": (("clip",), {"direction": "backwards"}, 40 + 25),
    "extend backwards far": (("clip",), {"direction": "backwards", "frames": 100}, 140),
    "extend backwards made": (("clip",), {"direction": "backwards", "frames": 60, "result": "made"}, 60),
    "extend both": (("clip",), {"direction": "both", "frames": 60}, 160),
    "complete": (("clip",), {"gap": (13, 25)}, 40),
    "complete odd": (("clip",), {"gap": (10, 21)}, 40),
    "complete beginning": (("clip",), {"gap": (0, 9)}, 40),
    "complete end": (("clip",), {"gap": (30, 40)}, 40),
    "complete near the end": (("clip",), {"gap": (26, 38)}, 40),
    "complete made": (("clip",), {"gap": (13, 25), "result": "made"}, 12),
    "restyle": (("long",), {}, 37),
    "restyle less": (("long",), {"frames": 20}, 20),
    "restyle far": (("long",), {"frames": 120}, 120),
}


# One piece, several, none of one's own, files that wait for each other, the last one short: the ways to a file.
FILED = ("text-to-video", "loop words", "extend both", "complete near the end", "restyle less", "transition cross")


@pytest.mark.parametrize("name", CASES)
def test_every_frame_is_where_it_belongs(name: str, sources: dict[str, str], work: Path) -> None:
    things, options, count = CASES[name]
    given = {"clip" if thing == "long" else thing: sources[thing] for thing in things}
    made = recipe(name.split(maxsplit=1)[0], given, **options)
    clip = render(made, Painter())
    assert clip.frames is not None
    assert clip.frames.shape == (count, 64, 64, 3) and clip.num_frames == count
    at = 0
    for piece in plan_of(made).pieces:
        if piece.kind == "made":
            size = piece.stop - piece.start
            assert marks(clip.frames[at : at + size]) == [(piece.part, t) for t in range(piece.start, piece.stop)]
        else:
            whole = original(piece.path)
            size = (len(whole) if piece.stop is None else piece.stop) - piece.start
            assert np.array_equal(clip.frames[at : at + size], whole[piece.start : piece.start + size]), "bit for bit"
        at += size
    assert at == count
    if name not in FILED:
        return
    # To a file: as many frames, the same but for the codec.
    filed = render(made, Painter(), out=work / "made.mp4")
    assert (filed.num_frames, filed.frames) == (count, None)
    assert media.check_clip(work / "made.mp4").num_frames == count
    assert np.abs(media.read_frames(work / "made.mp4").astype(int) - clip.frames).mean() < 6
    assert Recipe.from_json(media.read_recipe_text(work / "made.mp4")) == made
    assert [p.name for p in work.iterdir()] == ["made.mp4"], "no scratch folder is left"


def test_an_extension_keeps_the_whole_original_in_front(sources: dict[str, str]) -> None:
    """Said once more without a plan."""
    whole = original(sources["clip"])
    for direction, place in (("forwards", 0), ("backwards", 50), ("both", 50)):
        made = recipe("extend", {"clip": sources["clip"]}, direction=direction, frames=50)
        frames = render(made, Painter()).frames
        assert len(frames) == 40 + (100 if direction == "both" else 50)
        assert np.array_equal(frames[place : place + 40], whole)


def test_a_gap_is_filled_and_nothing_else_is_touched(sources: dict[str, str]) -> None:
    whole = original(sources["clip"])
    frames = render(recipe("complete", {"clip": sources["clip"]}, gap=(13, 25)), Painter()).frames
    assert np.array_equal(frames[:13], whole[:13]) and np.array_equal(frames[25:], whole[25:])
    assert marks(frames[13:25]) == [(0, t) for t in range(13, 25)]


def test_parts_go_on_from_the_frames_of_the_part_before(sources: dict[str, str]) -> None:
    """What a part gets as keyframe is what the part before it made in those frames."""
    for direction in ("forwards", "backwards"):
        made = recipe("extend", {"clip": sources["clip"]}, direction=direction, frames=60)
        painter = Painter()
        frames = render(made, painter).frames
        new = frames[40:] if direction == "forwards" else frames[:60]
        plan = plan_of(made)
        assert len(plan.parts) == 3
        for part, (timeline, z) in enumerate(zip(plan.parts, painter.latents, strict=True)):
            (keyframe,) = timeline.keyframes
            for slot in keyframe.slots:
                source = keyframe.source
                if part == 0 or not isinstance(source, PartSource):
                    continue
                before = plan.parts[part - 1].grid
                offset = source.start - keyframe.frames(6).start
                there = before.slot_of(timeline.grid.frames_of(slot)[-1] + offset)
                # Below the marks a slot is of one colour, or what it was given itself.
                earlier = painter.latents[part - 1][:, there, 1:]
                torch.testing.assert_close(z[:, slot, 1:], earlier, atol=0.02, rtol=0)
        assert len(new) == 60


def test_the_seam_of_a_loop(sources: dict[str, str]) -> None:
    """Words: frames 12 to 18 of a scene begin the second part and 1 to 12 end it; its last frame is left out."""
    painter = Painter()
    frames = render(recipe("loop", {}), painter).frames
    scene, closed = painter.latents
    torch.testing.assert_close(closed[:, :2, 1:], scene[:, 2:4, 1:], atol=0.02, rtol=0)
    torch.testing.assert_close(closed[:, -2:, 1:], scene[:, 1:3, 1:], atol=0.02, rtol=0)
    assert marks(frames) == [(1, t) for t in range(36)]


def test_a_clip_in_a_later_slot_covers_its_frames(sources: dict[str, str]) -> None:
    """Keyframe of slots 2 and 3: frames 7 to 18 of the video are frames 5 to 16 of the clip, averaged by slots."""
    keyframe = Keyframe(slot=2, span=2, source=ClipSource(path=sources["clip"], start=5))
    made = Recipe(task="keyframes", timeline=FAKE_SPEC.timeline(37, (keyframe,)), steps=2, guidance=1, seed=7)
    painter, whole = Painter(), original(sources["clip"])
    render(made, painter)
    means = whole[5:17].reshape(2, 6, 8, 8, 8, 8, 3).mean((1, 3, 5)) / 127.5 - 1  # (slot, rows, columns, 3)
    torch.testing.assert_close(
        painter.latents[0][:, 2:4], torch.from_numpy(means).permute(3, 0, 1, 2).float(), atol=1e-4, rtol=0
    )


# --- colours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["extend", "complete", "transition"])
def test_colours_are_matched_when_asked(task: str, sources: dict[str, str], work: Path) -> None:
    """A model that makes everything 12 levels darker: with the match, made frames lose the cast."""
    given = {"clip": sources["clip"]} | ({"clip_b": sources["clip_b"]} if task == "transition" else {})
    options = {"extend": {"frames": 60}, "complete": {"gap": (13, 25)}, "transition": {}}[task]
    plain = render(recipe(task, given, **options), Painter()).frames.astype(int)
    dark = render(recipe(task, given, **options), Painter(cast=12)).frames.astype(int)
    matched = render(recipe(task, given, color_match=True, **options), Painter(cast=12)).frames.astype(int)
    kept = [t for t in range(len(plain)) if np.array_equal(plain[t], dark[t])]
    made = [t for t in range(len(plain)) if t not in kept]
    assert made and np.array_equal(matched[kept], plain[kept]), "kept frames are kept"
    rows = slice(MARKED, None)
    blue = [(x[made, rows, :, 2] - plain[made, rows, :, 2]).mean() for x in (dark, matched)]
    assert blue[0] < -11 and abs(blue[1]) < 5, blue
    assert len(made) == {"extend": 60, "complete": 12, "transition": 12}[task]


def test_only_firm_slots_say_which_colours_are_right(sources: dict[str, str]) -> None:
    """A crossing is firm at its ends and free in the middle: its ends are matched."""
    given = {"clip": sources["clip"], "clip_b": sources["clip_b"]}
    made = recipe("transition", given, style="cross", result="made", color_match=True)
    assert max(made.timeline.keyframes[0].noises) > 0.8
    whole = original(sources["clip"]).astype(int)
    first = render(made, Painter(cast=12)).frames[0].astype(int)
    assert abs((first - whole[40 - 19])[MARKED:].mean()) < 3


# --- faults ----------------------------------------------------------------------------------------------------------


def test_cancelled_in_the_third_part(sources: dict[str, str], work: Path) -> None:
    told: list[object] = []
    seen = []

    def tell(event: object) -> None:
        told.append(event)
        seen.extend(work.glob(".pusa-*"))

    made = recipe("extend", {"clip": sources["clip"]}, frames=120, color_match=True)
    with pytest.raises(RunCancelled):
        render(made, Painter(), tell, out=work / "a.mp4", cancelled=lambda: getattr(told[-1], "part", 0) == 2)
    parts = {event.part for event in told if isinstance(event, Progress)}
    assert parts == {0, 1, 2} and all(e.parts == 5 for e in told if isinstance(e, Progress))
    assert seen, "there was a scratch folder"
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("out", [True, False])
@pytest.mark.parametrize("direction", ["forwards", "backwards", "both"])
def test_a_part_that_fails_leaves_nothing(
    out: bool, direction: str, sources: dict[str, str], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(work))
    made = recipe("extend", {"clip": sources["clip"]}, frames=60, direction=direction)
    with pytest.raises(RuntimeError, match="as asked"):
        render(made, Painter(fail_at=5), out=work / "a.mp4" if out else None)
    assert list(work.iterdir()) == []


def test_a_fault_of_the_model_is_not_told_as_one_of_the_disk(sources: dict[str, str], work: Path) -> None:
    class Wrong(Painter):
        def velocity(self, z, sigma, texts):
            raise ValueError("shapes differ")

    with pytest.raises(ValueError, match="shapes differ"):
        render(recipe("extend", {"clip": sources["clip"]}), Wrong(), out=work / "a.mp4")
    assert list(work.iterdir()) == []


def test_a_clip_that_vanishes_between_check_and_use(sources: dict[str, str], work: Path) -> None:
    path = write_clip(work / "a.mp4", 40)
    made = recipe("extend", {"clip": path}, frames=60)

    class Thief(Painter):
        def velocity(self, z, sigma, texts):
            Path(path).unlink(missing_ok=True)
            return super().velocity(z, sigma, texts)

    with pytest.raises(MediaError, match="does not exist"):
        render(made, Thief(), out=work / "b.mp4")
    assert list(work.iterdir()) == []


def test_a_full_disk_is_one_sentence(sources: dict[str, str], work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(work))
    made = recipe("extend", {"clip": sources["clip"]}, frames=60)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(MediaError, match="unfinished frames cannot be written") as caught:
            render(made, Painter())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("stop", [2, 3, 5, 6])
@pytest.mark.parametrize("task", ["extend", "restyle"])
def test_a_run_of_several_parts_goes_on_where_it_was(task: str, stop: int, sources: dict[str, str], work: Path) -> None:
    """Two steps a part: stopped after `stop` of them, in the first, second or third part."""
    options = {"frames": 72} if task == "extend" else {"frames": 100}
    made = recipe(task, {"clip": sources["long"]}, color_match=True, **options)
    assert len(plan_of(made).parts) == 3 + (task == "restyle")
    whole = render(made, Painter(cast=5)).frames
    first = Painter(cast=5)
    with pytest.raises(RunCancelled):
        render(made, first, out=work / "a.mp4", state_path=work / "state", cancelled=lambda: first.calls >= stop)
    assert sorted(p.name for p in work.iterdir()) == ["state", "state.1", "state.2"][: (stop + 1) // 2]
    second = Painter(cast=5)
    frames = render(made, second, state_path=work / "state").frames
    assert np.array_equal(frames, whole)
    assert second.calls == 2 * len(plan_of(made).parts) - stop
    assert list(work.iterdir()) == []


def test_sixty_parts_need_no_more_room_than_two(sources: dict[str, str], work: Path) -> None:
    """A part is 37 frames of 64x64, 0.45 MB: all of them would be 27 MB."""
    folders, files, peaks = set(), [], []

    def watch(event: object) -> None:
        folders.update(p.name for p in work.glob(".pusa-*.part") if p.is_dir())
        files.append(len(list(work.glob(".pusa-*.part/part-*.rgb"))))
        if isinstance(event, Progress) and event.phase == "decoding" and event.step == 37:
            peaks.append(tracemalloc.get_traced_memory()[1])

    made = recipe("extend", {"clip": sources["clip"]}, frames=60 * 24, color_match=True)
    assert len(plan_of(made).parts) == 60
    tracemalloc.start()
    try:
        clip = render(made.model_copy(update={"steps": 1}), FakeBackbone(), watch, out=work / "a.mp4")
    finally:
        tracemalloc.stop()
    assert clip.num_frames == 40 + 60 * 24
    assert (len(folders), max(files)) == (1, 2)
    assert len(peaks) == 60 and peaks[-1] - peaks[5] < 500_000, "memory is flat"
    assert peaks[-1] < 12_000_000


def test_frames_of_other_parts_in_a_recipe_are_refused() -> None:
    keyframe = Keyframe(slot=0, source=PartSource(part=0))
    made = Recipe(task="keyframes", timeline=FAKE_SPEC.timeline(37, (keyframe,)), steps=2, guidance=1, seed=7)
    with pytest.raises(RecipeError, match="another part"):
        render(made, FakeBackbone())
