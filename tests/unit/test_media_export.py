"""Exports: the frames of the video in another form, with its recipe or without a trace of it."""

from __future__ import annotations

import io
import json
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app.errors import MediaError
from pusa_app.media import (
    ENDINGS,
    QUALITIES,
    ClipWriter,
    check_clip,
    export_clip,
    free_bytes,
    needed_bytes,
    read_frames,
    read_recipe_text,
)
from pusa_app.media import _ffmpeg as ffmpeg_room
from pusa_app.media.export import MAX_CRF

WIDTH, HEIGHT, COUNT, FPS = 96, 64, 37, 12
PROMPT = "a yellow ring, „schön“ \\ = # ; 'so'"
RECIPE = json.dumps({"prompt": PROMPT, "steps": 20}, ensure_ascii=False, indent=2)
TRACES = [b"a yellow ring", b"pusa_recipe", b"PUSA_RECIPE", b"comment", b"COMMENT", "©cmt".encode("latin-1")]


def ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_room.executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


def moving(count: int = COUNT, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    frames = [
        np.stack([128 + 100 * np.sin((x + 3 * i) / 15), y * 200 / height, 200 - x % 200], -1) for i in range(count)
    ]
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "ring.mp4"
    with ClipWriter(path, WIDTH, HEIGHT, FPS, RECIPE) as clip:
        clip.write(moving())
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9))


def recipe_in(path: Path) -> str:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return archive.read("recipe.json").decode()
    return read_recipe_text(path)


def pictures(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert names == [f"frame-{number:06d}.png" for number in range(len(names))]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])


def frames_in(path: Path) -> np.ndarray:
    return pictures(path) if path.suffix == ".zip" else read_frames(path)


@pytest.mark.parametrize("kind", ENDINGS)
def test_every_kind_holds_the_frames_and_the_recipe(tmp_path: Path, video: Path, kind: str) -> None:
    out = tmp_path / f"out{ENDINGS[kind]}"
    export_clip(video, out, kind)
    wanted, made = read_frames(video), frames_in(out)
    assert made.shape == wanted.shape
    if kind in ("mp4", "frames"):
        assert np.array_equal(made, wanted)
    else:
        assert psnr(made, wanted) > {"webm": 36, "gif": 27}[kind]
    assert recipe_in(out) == RECIPE
    if kind != "frames":
        info = check_clip(out)
        assert info.fps == pytest.approx(FPS, rel=0.01)
        assert info.seconds == pytest.approx(COUNT / FPS, abs=0.03)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("kind", "quality"),
    [("mp4", None), ("mp4", "medium"), ("webm", None), ("webm", "medium"), ("gif", None), ("frames", None)],
)
def test_without_the_recipe_there_is_no_trace_of_it(
    tmp_path: Path, video: Path, kind: str, quality: str | None
) -> None:
    out = tmp_path / f"out{ENDINGS[kind]}"
    export_clip(video, out, kind, quality=quality, recipe=False)
    data = out.read_bytes()
    assert not [trace for trace in TRACES if trace in data]
    if kind == "frames":
        assert "recipe.json" not in zipfile.ZipFile(out).namelist()
        return
    with pytest.raises(MediaError, match="no recipe"):
        read_recipe_text(out)
    tags = subprocess.run(
        [ffmpeg_room.executable(), "-v", "error", "-i", out, "-f", "ffmetadata", "-"], capture_output=True, check=True
    ).stdout.decode()
    told = {line.partition("=")[0].lower() for line in tags.splitlines()[1:]}
    assert told <= {"major_brand", "minor_version", "compatible_brands", "encoder"}, tags


def test_tags_of_other_programs_never_come_along(tmp_path: Path, video: Path) -> None:
    source = tmp_path / "tagged.mp4"
    (tmp_path / "chapters").write_text(
        ";FFMETADATA1\ntitle=SECRET\n[STREAM]\ntitle=SECRET\n[CHAPTER]\nSTART=0\nEND=1000000000\ntitle=SECRET\n"
    )
    inputs = ["-i", video, "-f", "ffmetadata", "-i", tmp_path / "chapters", "-f", "lavfi", "-i", "sine=duration=1"]
    tags = ["-map_metadata", "1", "-map_chapters", "1", "-metadata", "comment=SECRET"]
    tags += ["-metadata:s:v", "handler_name=SECRET", "-metadata:s:v", "title=SECRET"]
    ffmpeg(*inputs, "-map", "0:v", "-map", "2:a", *tags, "-c:v", "copy", source)
    assert source.read_bytes().count(b"SECRET") >= 3
    for kind, quality in (("mp4", None), ("mp4", "small"), ("webm", "small"), ("gif", None)):
        export_clip(source, tmp_path / "out", kind, quality=quality)
        assert b"SECRET" not in (tmp_path / "out").read_bytes(), kind


@pytest.mark.parametrize("kind", ENDINGS)
def test_another_text_takes_the_place_of_the_recipe(tmp_path: Path, video: Path, kind: str) -> None:
    out = tmp_path / f"out{ENDINGS[kind]}"
    text = json.dumps({"prompt": "x" * 100_000})
    export_clip(video, out, kind, recipe=text)
    assert recipe_in(out) == text
    assert b"a yellow ring" not in out.read_bytes()
    assert len(frames_in(out)) == COUNT


@pytest.mark.parametrize("kind", MAX_CRF)
def test_qualities_go_from_good_to_small(tmp_path: Path, video: Path, kind: str) -> None:
    wanted, sizes, likeness = read_frames(video), [], []
    for quality in (0, *QUALITIES, MAX_CRF[kind]):
        export_clip(video, tmp_path / "out", kind, quality=quality)
        sizes.append((tmp_path / "out").stat().st_size)
        likeness.append(psnr(read_frames(tmp_path / "out"), wanted))
    assert sizes == sorted(sizes, reverse=True)
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[1] > 38, "high"
    assert likeness[0] - likeness[-1] > 10


@pytest.mark.parametrize("kind", ENDINGS)
def test_the_same_video_gives_the_same_bytes(tmp_path: Path, video: Path, kind: str) -> None:
    for name in ("a", "b"):
        export_clip(video, tmp_path / name, kind, quality="small" if kind in MAX_CRF else None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_copy_of_an_mp4_is_the_very_same_stream(tmp_path: Path, video: Path) -> None:
    export_clip(video, tmp_path / "a.mp4", "mp4")
    export_clip(video, tmp_path / "b.mp4", "mp4", recipe=False)
    assert abs((tmp_path / "a.mp4").stat().st_size - video.stat().st_size) < 1000
    data = (tmp_path / "b.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "it plays while it loads"
    assert data[data.find(b"mdat") :] == video.read_bytes()[video.read_bytes().find(b"mdat") :]


@pytest.mark.parametrize(("kind", "size"), [("mp4", (48, 32)), ("webm", (47, 31)), ("gif", (47, 31))])
def test_a_width_brings_its_height(tmp_path: Path, video: Path, kind: str, size: tuple[int, int]) -> None:
    export_clip(video, tmp_path / "out", kind, width=49 if kind == "mp4" else 47)
    info = check_clip(tmp_path / "out")
    assert (info.width, info.height, info.num_frames) == (*size, COUNT)


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("size", [(33, 47), (1, 1)])
def test_odd_sizes(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    source = tmp_path / "odd.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        f"testsrc2=size=33x47:rate=12,scale={size[0]}:{size[1]}",
        "-frames:v",
        "3",
        "-c:v",
        "ffv1",
        source,
    )
    export_clip(source, tmp_path / f"out{ENDINGS[kind]}", kind, quality="high" if kind == "mp4" else None)
    made = frames_in(tmp_path / f"out{ENDINGS[kind]}")
    wanted = (max(size[1] // 2 * 2, 2), max(size[0] // 2 * 2, 2)) if kind == "mp4" else size[::-1]
    assert made.shape == (3, *wanted, 3)


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_clip_of_one_frame(tmp_path: Path, kind: str) -> None:
    with ClipWriter(tmp_path / "one.mp4", WIDTH, HEIGHT, FPS, RECIPE) as clip:
        clip.write(moving(1))
    out = tmp_path / f"out{ENDINGS[kind]}"
    export_clip(tmp_path / "one.mp4", out, kind)
    assert frames_in(out).shape == (1, HEIGHT, WIDTH, 3)
    assert recipe_in(out) == RECIPE


@pytest.mark.parametrize("kind", ENDINGS)
def test_turned_stretched_and_foreign_clips_are_exported_as_they_are_shown(
    tmp_path: Path, video: Path, kind: str
) -> None:
    ffmpeg("-i", video, "-vf", "setsar=2", tmp_path / "wide.mp4")
    source, out = tmp_path / "turned.mov", tmp_path / f"out{ENDINGS[kind]}"
    ffmpeg("-display_rotation", "-90", "-i", tmp_path / "wide.mp4", "-c", "copy", source)
    wanted = read_frames(source)
    assert wanted.shape[1:3] == (2 * WIDTH, HEIGHT)
    export_clip(source, out, kind, quality="high" if kind in MAX_CRF else None)
    made = frames_in(out)
    assert made.shape == wanted.shape
    assert psnr(made, wanted) > 25


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif"])
def test_a_rate_that_varies_stays(tmp_path: Path, video: Path, kind: str) -> None:
    source = tmp_path / "variable.mkv"
    times = "setpts='(N*8+40*gt(N,20))*0.01/TB'"
    ffmpeg("-i", video, "-vf", times, "-fps_mode", "passthrough", "-c:v", "ffv1", source)
    export_clip(source, tmp_path / "out", kind, quality="small" if kind in MAX_CRF else None)
    before, after = check_clip(source), check_clip(tmp_path / "out")
    assert after.num_frames == before.num_frames
    assert after.seconds == pytest.approx(before.seconds, abs=0.05)


def test_a_gif_is_held_to_what_players_show(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "fast.mp4", WIDTH, HEIGHT, 120) as clip:
        clip.write(moving(60))
    export_clip(tmp_path / "fast.mp4", tmp_path / "fast.gif", "gif")
    info = check_clip(tmp_path / "fast.gif")
    assert info.num_frames == 25
    assert info.seconds == pytest.approx(0.5, abs=0.03)


def test_a_gif_repeats_and_other_programs_read_it(tmp_path: Path, video: Path) -> None:
    export_clip(video, tmp_path / "a.gif", "gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == COUNT
        assert image.info["loop"] == 0
        assert image.info["comment"].decode() == RECIPE


@pytest.mark.parametrize("kind", ["gif", "frames"])
def test_memory_does_not_grow_with_the_video(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=192x128:rate=24", "-frames:v", "400", "-preset", "ultrafast", source)
    tracemalloc.start()
    try:
        export_clip(source, tmp_path / "out", kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 192 * 128 * 3 * 3 + 2**21, "the clip is twenty times as large"


# Room on the disk


def test_noise_needs_less_than_estimated_and_estimates_grow_with_everything(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (30, 240, 320, 3), dtype=np.uint8)
    with ClipWriter(tmp_path / "noise.mp4", 320, 240, 24) as clip:
        clip.write(frames)
    pixels = frames.size // 3
    fixed = needed_bytes(1, 1, 1) - (needed_bytes(1, 1, 2) - needed_bytes(1, 1, 1))
    assert needed_bytes(320, 240, 30) - fixed >= frames.nbytes + (tmp_path / "noise.mp4").stat().st_size
    assert needed_bytes(320, 240, 30) - fixed == 6 * pixels
    assert needed_bytes(320, 240, 30, videos=5) - needed_bytes(320, 240, 30) == 4 * 3 * pixels
    assert needed_bytes(848, 480, 163) > 163 * 848 * 480 * 3
    for wrong in ((0, 1, 1), (1, -1, 1), (1, 1, 0), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            needed_bytes(*wrong)


def test_room_is_told_for_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(free_bytes(tmp_path), rel=0.05)
