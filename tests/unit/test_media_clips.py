"""Clips: what is written comes back, frame numbers are exact, tags hold the recipe."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app.errors import MediaError
from pusa_app.media import (
    ClipWriter,
    check_clip,
    check_image,
    load_clip,
    read_frames,
    read_recipe_text,
    remove_leftovers,
    save_poster,
    write_gif,
)
from pusa_app.media._ffmpeg import executable

WIDTH, HEIGHT = 96, 64
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (17, 130, 200), (128, 128, 128)]


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


def counting(count: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Frame i is one grey of level 10 + 4*i: what comes back says which frame it was."""
    levels = (10 + 4 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 10) / 4) for frame in frames]


def write(path: Path, frames: np.ndarray, fps: float = 24, recipe: str | None = None) -> Path:
    with ClipWriter(path, frames.shape[2], frames.shape[1], fps, recipe) as clip:
        clip.write(frames)
    return path


def test_colours_come_back_within_two_levels(tmp_path: Path) -> None:
    frames = np.zeros((len(COLOURS), HEIGHT, WIDTH, 3), np.uint8)
    frames[:] = np.array(COLOURS, np.uint8)[:, None, None]
    back = read_frames(write(tmp_path / "a.mp4", frames))
    assert np.abs(back.astype(int) - frames).max() <= 2


def test_a_smooth_picture_comes_back_nearly_as_it_was(tmp_path: Path) -> None:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    moving = [np.stack([128 + 100 * np.sin((x + 3 * i) / 15), y * 3.5, 200 - x], -1) for i in range(12)]
    frames = np.clip(np.stack(moving), 0, 255).astype(np.uint8)
    back = read_frames(write(tmp_path / "a.mp4", frames))
    error = ((back.astype(float) - frames) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 40


def test_the_file_is_what_browsers_play(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", counting(5))
    said = subprocess.run([executable(), "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False)
    assert "h264" in said.stderr
    assert "yuv420p(tv, bt709" in said.stderr
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "the index comes first"


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (30, HEIGHT, WIDTH, 3)).astype(np.uint8)
    with ClipWriter(tmp_path / "a.mp4", WIDTH, HEIGHT, 12, "{}") as clip:
        clip.write(frames)
    with ClipWriter(tmp_path / "b.mp4", WIDTH, HEIGHT, 12, "{}") as clip:
        for frame in frames:
            clip.write(frame[None])
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.mp4", "b.mp4")}
    assert len(digests) == 1
    # x264 decides differently with another number of threads, which must not be that of the machine.
    assert b"threads=4 " in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("fps", [1, 7.5, 12, 24, 30000 / 1001, 60])
def test_rate_and_length_come_back(tmp_path: Path, fps: float) -> None:
    info = check_clip(write(tmp_path / "a.mp4", counting(13), fps))
    assert (info.width, info.height, info.num_frames) == (WIDTH, HEIGHT, 13)
    assert info.fps == pytest.approx(fps, rel=1e-9)
    assert info.seconds == pytest.approx(13 / fps, rel=1e-3)


@pytest.mark.parametrize(
    "recipe",
    [
        "{}",
        json.dumps({"prompt": 'a "cat"; it\'s #1 = \\best\\\n\r\n\t[STREAM] ;x'}, indent=2),
        json.dumps({"prompt": "猫 Ünï 🎉 \u2028"}, ensure_ascii=False),
        '{"a": 1}\r\n\r\n[CHAPTER]\ncomment=z\n;x\n#y\n\\\nq\n',
        json.dumps({"prompt": "long " * 150_000}),
    ],
    ids=["empty", "escapes", "unicode", "raw lines", "very long"],
)
def test_a_recipe_comes_back_letter_by_letter(tmp_path: Path, recipe: str) -> None:
    path = write(tmp_path / "a.mp4", counting(2), recipe=recipe)
    assert read_recipe_text(path) == recipe


def test_a_copy_by_another_program_keeps_the_recipe_in_its_comment(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", counting(2), recipe='{"steps": 4}')
    ffmpeg("-i", path, "-c", "copy", tmp_path / "copy.mp4")
    assert b"pusa_recipe" not in (tmp_path / "copy.mp4").read_bytes()
    assert read_recipe_text(tmp_path / "copy.mp4") == '{"steps": 4}'


def test_a_clip_without_a_recipe_says_so(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.mp4", counting(2))
    commented = tmp_path / "commented.mp4"
    ffmpeg("-i", plain, "-c", "copy", "-metadata", "comment=my holidays", commented)
    for path in (plain, commented):
        with pytest.raises(MediaError, match="has no recipe inside"):
            read_recipe_text(path)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "avi", "gif"])
def test_every_container_is_read_frame_by_frame(tmp_path: Path, ending: str) -> None:
    source = write(tmp_path / "source.mp4", counting(15), fps=12.5)
    path = tmp_path / f"clip.{ending}"
    coding = {"webm": ["-c:v", "libvpx", "-b:v", "2M"], "avi": ["-c:v", "mjpeg", "-q:v", "2"]}.get(ending, [])
    if ending == "gif":
        write_gif(counting(15), path, 12.5)
    else:
        ffmpeg("-i", source, *coding, path)
    disguised = tmp_path / "clip.txt"
    path.rename(disguised)
    info = check_clip(disguised)
    assert (info.width, info.height, info.num_frames) == (WIDTH, HEIGHT, 15)
    assert info.fps == pytest.approx(12.5, rel=1e-3)
    assert numbers(load_clip(disguised, 48, 32, fps=12.5, num_frames=15)) == list(range(15))


def test_frames_are_counted_exactly(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", counting(40), fps=24)
    for start in (0, 1, 17, 35):
        assert numbers(load_clip(path, 32, 32, fps=24, start=start, num_frames=5)) == list(range(start, start + 5))


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_odd_rates_keep_every_frame(tmp_path: Path, container: str) -> None:
    fps = 30000 / 1001
    path = tmp_path / f"b.{container}"
    ffmpeg("-i", write(tmp_path / "a.mp4", counting(50), fps), "-c", "copy", path)
    assert numbers(load_clip(path, 32, 32, fps=fps, num_frames=50)) == list(range(50))


def test_resampling_drops_and_repeats_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", counting(24), fps=24)
    half = numbers(load_clip(path, 32, 32, fps=12, num_frames=12))
    assert all(b - a == 2 for a, b in itertools.pairwise(half))
    double = numbers(load_clip(path, 32, 32, fps=48, num_frames=48))
    assert [double.count(n) for n in range(1, 23)] == [2] * 22
    assert numbers(load_clip(path, 32, 32, fps=12, start=4, num_frames=3)) == half[4:7]


@pytest.mark.parametrize("offset", ["0.5", "0.5208"])
def test_sound_that_begins_earlier_does_not_shift_the_frames(tmp_path: Path, offset: str) -> None:
    source = write(tmp_path / "a.mp4", counting(24), fps=24)
    late = tmp_path / "late.mkv"
    sound = ["-f", "lavfi", "-i", "sine=duration=1.5"]
    ffmpeg(*sound, "-itsoffset", offset, "-i", source, "-map", "1:v", "-map", "0:a", "-c:v", "copy", late)
    assert numbers(load_clip(late, 32, 32, fps=24, num_frames=24)) == list(range(24))
    assert check_clip(late).seconds == pytest.approx(1, abs=0.01)


def test_a_clip_that_is_too_short_says_how_long_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", counting(20), fps=24)
    for start, wanted in ((0, 21), (15, 6), (500, 1)):
        with pytest.raises(MediaError) as caught:
            load_clip(path, 32, 32, fps=24, start=start, num_frames=wanted)
        assert "has 20 frames at 24 frames a second" in str(caught.value)
        assert f"{wanted} are asked for" in str(caught.value)


@pytest.mark.parametrize(("start", "num_frames"), [(-1, 3), (0, 0), (0, -2)])
def test_impossible_ranges_are_refused(tmp_path: Path, start: int, num_frames: int) -> None:
    path = write(tmp_path / "a.mp4", counting(5))
    with pytest.raises(MediaError, match="not a part of a clip"):
        load_clip(path, 32, 32, fps=24, start=start, num_frames=num_frames)


def test_rotation_is_honoured(tmp_path: Path) -> None:
    frames = np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, :, : WIDTH // 2] = (250, 0, 0)
    plain, turned = write(tmp_path / "a.mp4", frames), tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "-90", "-i", plain, "-c", "copy", turned)
    info = check_clip(turned)
    assert (info.width, info.height) == (HEIGHT, WIDTH)
    loaded = load_clip(turned, HEIGHT, WIDTH, fps=24, num_frames=3)
    assert loaded[0, 10, HEIGHT // 2, 0] > 200, "turned clockwise, the red left half is on top"
    assert loaded[0, WIDTH - 10, HEIGHT // 2, 0] < 50


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    wide = tmp_path / "wide.mp4"
    ffmpeg("-i", write(tmp_path / "a.mp4", counting(3)), "-vf", "setsar=2", wide)
    info = check_clip(wide)
    assert (info.width, info.height) == (2 * WIDTH, HEIGHT)
    assert load_clip(wide, 48, 32, fps=24, num_frames=3, fit="pad")[0, :4].max() == 0


def halves() -> np.ndarray:
    frames = np.zeros((2, 32, 96, 3), np.uint8)
    frames[:, :, :48], frames[:, :, 48:] = (250, 0, 0), (0, 0, 250)
    return frames


def test_crop_keeps_what_is_in_focus(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", halves())
    left = load_clip(path, 32, 32, fps=24, num_frames=1, focus=(0, 0.5))[0].mean((0, 1))
    right = load_clip(path, 32, 32, fps=24, num_frames=1, focus=(1, 0.5))[0].mean((0, 1))
    assert left[0] > 240
    assert left[2] < 10
    assert right[2] > 240
    assert right[0] < 10


def test_pad_shows_everything_between_black_bars(tmp_path: Path) -> None:
    padded = load_clip(write(tmp_path / "a.mp4", halves()), 48, 48, fps=24, num_frames=1, fit="pad")[0]
    assert padded[:15].max() <= 2
    assert padded[33:].max() <= 2
    assert padded[24, 4, 0] > 240
    assert padded[24, 43, 2] > 240


def test_odd_model_sizes_are_exact(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", counting(2))
    for size in ((33, 47), (97, 63), (1, 1)):
        assert load_clip(path, *size, fps=24, num_frames=2).shape == (2, size[1], size[0], 3)
        assert load_clip(path, *size, fps=24, num_frames=2, fit="pad").shape == (2, size[1], size[0], 3)


def test_odd_names_are_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ["-y", "-i.mp4", "a b'\"%03d.mp4", "日本 🎉.mp4", "http:x.mp4", "concat:a|b.mp4", "x" * 250 + ".mp4"]:
        path = write(Path(name), counting(2), recipe='{"a": 1}')
        assert check_clip(path).num_frames == 2
        assert read_recipe_text(name) == '{"a": 1}'
    assert not list(tmp_path.glob(".*"))


def test_an_existing_clip_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", counting(2))
    before = path.read_bytes()
    with ClipWriter(path, WIDTH, HEIGHT, 24) as clip:
        clip.write(counting(9))
        assert path.read_bytes() == before
    assert check_clip(path).num_frames == 9


def test_a_gif_has_the_right_frames_and_repeats(tmp_path: Path) -> None:
    frames = np.zeros((10, HEIGHT, WIDTH, 3), np.uint8)
    frames[:] = np.linspace(0, 250, 10).astype(np.uint8)[:, None, None, None]
    write_gif(frames, tmp_path / "a.gif", 24)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 10
        assert image.info["loop"] == 0
        image.seek(9)
        assert abs(int(np.asarray(image.convert("RGB")).mean()) - 250) <= 3
    assert check_clip(tmp_path / "a.gif").seconds == pytest.approx(10 / 24, abs=0.02)


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.PNG", "PNG"), ("a.webp", "WEBP")])
def test_a_poster_is_a_picture(tmp_path: Path, name: str, kind: str) -> None:
    save_poster(counting(1)[0], tmp_path / name)
    info = check_image(tmp_path / name)
    assert (info.width, info.height, info.format) == (WIDTH, HEIGHT, kind)


def test_a_poster_needs_a_known_ending(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"\.jpg, \.png or \.webp"):
        save_poster(counting(1)[0], tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, HEIGHT, WIDTH, 3), np.float32),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((2, HEIGHT, WIDTH, 4), np.uint8),
        np.zeros((2, WIDTH, HEIGHT, 3), np.uint8),
    ],
    ids=["float", "one frame", "alpha", "turned"],
)
def test_wrong_arrays_are_the_callers_mistake(tmp_path: Path, frames: np.ndarray) -> None:
    with (
        pytest.raises(ValueError, match="frames must be"),
        ClipWriter(tmp_path / "a.mp4", WIDTH, HEIGHT, 24) as clip,
    ):
        clip.write(frames)
    assert not list(tmp_path.iterdir())


def test_frames_need_not_be_contiguous(tmp_path: Path) -> None:
    frames = counting(10)
    path = tmp_path / "a.mp4"
    with ClipWriter(path, WIDTH, HEIGHT, 24) as clip:
        clip.write(frames[::-1, :, ::-1])
    assert numbers(read_frames(path)) == list(range(9, -1, -1))


@pytest.mark.parametrize("size", [(95, 64), (96, 63), (0, 64), (-2, 64)])
def test_odd_sizes_are_refused_before_anything_is_written(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match="must be even"):
        ClipWriter(tmp_path / "a.mp4", *size, fps=24)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", ["ends with \\", "a\0b"])
def test_a_recipe_that_is_no_json_is_the_callers_mistake(tmp_path: Path, recipe: str) -> None:
    with pytest.raises(ValueError, match="must be JSON"):
        ClipWriter(tmp_path / "a.mp4", WIDTH, HEIGHT, 24, recipe)


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".pusa-0123.part").write_bytes(b"half a clip")
    (tmp_path / ".mine").write_bytes(b"")
    (tmp_path / "a.part").write_bytes(b"")
    assert remove_leftovers(tmp_path) == 0, "it may belong to a writer that is still at work"
    assert remove_leftovers(tmp_path, older_than=0) == 1
    assert {path.name for path in tmp_path.iterdir()} == {".mine", "a.part"}
