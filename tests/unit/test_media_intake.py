"""The intake: a copy of ours gives the same pixels as what was given, and holds nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from pusa_app.errors import MediaError
from pusa_app.media import (
    ClipWriter,
    ImageInfo,
    check_clip,
    count_frames,
    load_clip,
    load_image,
    read_recipe_text,
    take_clip,
    take_image,
)
from pusa_app.media import _ffmpeg as ffmpeg_room
from pusa_app.media import intake as intake_room

WIDTH, HEIGHT = 96, 64
SECRET = "a prompt that nobody else may read"


def ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_room.executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


# Pictures


def photo(size: tuple[int, int] = (90, 61)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def as_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, SECRET
    Image.fromarray(photo()).save(path, "JPEG", exif=exif, comment=SECRET.encode(), icc_profile=srgb())


def as_png(path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", SECRET)
    alpha = np.dstack([photo(), np.random.default_rng(2).integers(0, 255, (61, 90), dtype=np.uint8)])
    Image.fromarray(alpha).save(path, "PNG", pnginfo=text, dpi=(300, 300))


def as_palette(path: Path) -> None:
    Image.fromarray(photo()).quantize(32).save(path, "GIF", comment=SECRET.encode(), transparency=3)


def as_cmyk(path: Path) -> None:
    Image.fromarray(photo()).convert("CMYK").save(path, "JPEG", comment=SECRET.encode())


def as_deep_grey(path: Path) -> None:
    Image.fromarray(np.random.default_rng(3).integers(0, 65535, (61, 90)).astype(np.uint16)).save(
        path, "TIFF", description=SECRET
    )


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("make", [as_jpeg, as_png, as_palette, as_cmyk, as_deep_grey])
def test_a_taken_picture_is_the_same_picture_and_nothing_else(tmp_path: Path, make) -> None:
    source, copy = tmp_path / "upload", tmp_path / "copy"
    make(source)
    info = take_image(source, copy)
    shown = (61, 90) if make is as_jpeg else (90, 61)
    assert info == ImageInfo(*shown, "PNG")
    for size, fit, focus in (
        (shown, "crop", (0.5, 0.5)),
        ((64, 64), "crop", (0.0, 1.0)),
        ((33, 47), "pad", (0.5, 0.5)),
        ((200, 100), "crop", (0.5, 0.5)),
    ):
        assert np.array_equal(load_image(copy, *size, fit, focus), load_image(source, *size, fit, focus))
    with Image.open(copy) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        image.load()
        assert not image.info
        assert not image.getexif()
    assert SECRET.encode() in source.read_bytes()
    assert SECRET.encode() not in copy.read_bytes()


# Clips: each makes an upload with the frames of `base`, 25 of them at 12.5 a second.


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with edges, colours and noise, stored exactly."""
    path = tmp_path_factory.mktemp("base") / "base.mkv"
    source = "testsrc2=size=96x64:rate=12.5:duration=2,noise=alls=25:allf=t:all_seed=5"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "ffv1", "-pix_fmt", "bgr0", path)
    return path


TAGGED = "setparams=color_primaries={0}:color_trc={0}:colorspace={0}"
VARIABLE = "setpts='(N*2+mod(N,3)*1.3+2*gt(N,11))*0.04/TB'"
UPLOADS: dict[str, tuple[str, list[str]]] = {
    "mp4, colours not told": ("mp4", ["-pix_fmt", "yuv420p"]),
    "mp4, BT.709": ("mp4", ["-vf", "scale=out_color_matrix=bt709," + TAGGED.format("bt709"), "-pix_fmt", "yuv420p"]),
    "mp4, BT.601": ("mp4", ["-vf", TAGGED.format("smpte170m"), "-pix_fmt", "yuv420p"]),
    "mp4, full range": ("mp4", ["-vf", "scale=out_range=pc", "-pix_fmt", "yuv420p", "-color_range", "pc"]),
    "mp4, chroma whole": ("mp4", ["-pix_fmt", "yuv444p"]),
    "mp4, RGB": ("mp4", ["-c:v", "libx264rgb"]),
    "mp4, 29.97": ("mp4", ["-r", "30000/1001", "-pix_fmt", "yuv420p"]),
    "mp4, a rate that varies": ("mp4", ["-vf", VARIABLE, "-fps_mode", "passthrough", "-pix_fmt", "yuv420p"]),
    "mp4, HEVC of 10 bits": ("mp4", ["-c:v", "libx265", "-x265-params", "log-level=0", "-pix_fmt", "yuv420p10le"]),
    "webm, VP9": ("webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-pix_fmt", "yuv420p"]),
    "webm, VP9 tagged": (
        "webm",
        ["-vf", TAGGED.format("bt709"), "-c:v", "libvpx-vp9", "-deadline", "realtime", "-pix_fmt", "yuv420p"],
    ),
    "webm, odd size": (
        "webm",
        ["-vf", "scale=95:63," + TAGGED.format("bt709"), "-c:v", "libvpx-vp9", "-deadline", "realtime"],
    ),
    "webm, VP8": ("webm", ["-c:v", "libvpx", "-auto-alt-ref", "0", "-b:v", "2M", "-pix_fmt", "yuv420p"]),
    "webm, transparent": (
        "webm",
        ["-vf", "format=yuva420p", "-c:v", "libvpx-vp9", "-deadline", "realtime", "-auto-alt-ref", "0"],
    ),
    "webm, a rate that varies": ("webm", ["-vf", VARIABLE, "-fps_mode", "passthrough", "-c:v", "libvpx"]),
    "webm, 12 bits": ("webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-pix_fmt", "yuv420p12le"]),
    "gif": ("gif", []),
    "gif, a rate that varies": ("gif", ["-vf", VARIABLE, "-fps_mode", "passthrough"]),
    "gif, odd size": ("gif", ["-vf", "scale=33:47"]),
    "mov, ProRes": ("mov", ["-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"]),
    "mov, transparent": ("mov", ["-c:v", "qtrle", "-pix_fmt", "argb"]),
    "avi, JPEG": ("avi", ["-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"]),
    "avi, MPEG-4": ("avi", ["-c:v", "mpeg4", "-q:v", "3"]),
    "mkv, 4:1:1": ("mkv", ["-c:v", "ffv1", "-pix_fmt", "yuv411p"]),
    "mkv, odd size, only the matrix told": (
        "mkv",
        ["-vf", "scale=95:63,format=yuv420p,setparams=colorspace=bt709", "-c:v", "ffv1"],
    ),
    "mkv, grey": ("mkv", ["-c:v", "ffv1", "-pix_fmt", "gray"]),
    "mkv, deep RGB": ("mkv", ["-c:v", "ffv1", "-pix_fmt", "gbrp12le"]),
    "mkv, pixels not square": ("mkv", ["-vf", "setsar=4/3", "-pix_fmt", "yuv420p"]),
    "mkv, one frame": ("mkv", ["-frames:v", "1", "-pix_fmt", "yuv420p"]),
}
SIZES = (((96, 64), "crop"), ((40, 40), "crop"), ((33, 47), "pad"), ((130, 90), "crop"))


def upload(base: Path, folder: Path, kind: str) -> Path:
    ending, coding = UPLOADS[kind]
    path = folder / f"upload.{ending}"
    sound = ["-f", "lavfi", "-i", "sine=duration=2", "-shortest"] if ending in ("mp4", "mov", "mkv", "avi") else []
    ffmpeg(
        "-i",
        base,
        *sound,
        "-map",
        "0:v",
        *(["-map", "1:a"] if sound else []),
        *coding,
        "-metadata",
        f"comment={SECRET}",
        path,
    )
    return path


def frames_of(path: Path, size: tuple[int, int], fit: str, fps: float) -> np.ndarray:
    return load_clip(path, *size, fps=fps, num_frames=count_frames(path, fps), fit=fit)


def assert_same(source: Path, copy: Path, rates: tuple[float, ...] = (12.5, 24, 30000 / 1001, 7)) -> None:
    for number, fps in enumerate(rates):
        for size, fit in SIZES if number == 0 else SIZES[1:2]:
            wanted, made = frames_of(source, size, fit, fps), frames_of(copy, size, fit, fps)
            assert len(wanted) == len(made), fps
            assert np.array_equal(wanted, made), (size, fps, int(np.abs(wanted.astype(int) - made).max()))


@pytest.mark.parametrize("kind", UPLOADS)
def test_a_taken_clip_has_the_same_frames_at_any_size_and_rate(tmp_path: Path, base: Path, kind: str) -> None:
    source, copy = upload(base, tmp_path, kind), tmp_path / "copy"
    info, before = take_clip(source, copy), check_clip(source)
    assert info == check_clip(copy)
    assert (info.width, info.height, info.num_frames) == (before.width, before.height, before.num_frames)
    assert info.fps == pytest.approx(before.fps, rel=1e-3)
    assert info.seconds == pytest.approx(before.seconds, abs=0.002)
    assert_same(source, copy)
    assert copy.read_bytes()[4:8] == b"ftyp", "an MP4, whatever came in"
    assert SECRET.encode() not in copy.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", source.name]


def test_motion_jpeg_of_an_odd_size_differs_in_its_colours_edges_only(tmp_path: Path, base: Path) -> None:
    source, copy = tmp_path / "odd.avi", tmp_path / "copy"
    ffmpeg("-i", base, "-vf", "scale=95:63", "-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj422p", source)
    take_clip(source, copy)
    wanted, made = (frames_of(path, (95, 63), "crop", 12.5).astype(int) for path in (source, copy))
    assert len(wanted) == len(made)
    assert np.abs(wanted - made).mean() < 1


@pytest.mark.parametrize("turn", ["90", "180", "-90"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p"])
def test_a_turned_clip_is_taken_upright(tmp_path: Path, base: Path, turn: str, pixels: str) -> None:
    plain, source, copy = tmp_path / "plain.mp4", tmp_path / "turned.mov", tmp_path / "copy.mp4"
    ffmpeg("-i", base, "-pix_fmt", pixels, plain)
    ffmpeg("-display_rotation", turn, "-i", plain, "-c", "copy", source)
    info = take_clip(source, copy)
    assert (info.width, info.height) == ((WIDTH, HEIGHT) if turn == "180" else (HEIGHT, WIDTH))
    assert_same(source, copy)
    # Also for a reader that does not turn.
    said = subprocess.run(
        [ffmpeg_room.executable(), "-hide_banner", "-i", copy], capture_output=True, text=True, check=False
    )
    assert "rotation" not in said.stderr
    assert f"{info.width}x{info.height}" in said.stderr


@pytest.mark.parametrize("offset", ["0.5", "0.5208"])
def test_sound_that_begins_earlier_is_left_out_and_shifts_nothing(tmp_path: Path, base: Path, offset: str) -> None:
    source, copy = tmp_path / "late.mkv", tmp_path / "copy.mp4"
    sound = ["-f", "lavfi", "-i", "sine=duration=1.5"]
    ffmpeg(*sound, "-itsoffset", offset, "-i", base, "-map", "1:v", "-map", "0:a", "-c:v", "copy", source)
    take_clip(source, copy)
    assert_same(source, copy)
    said = subprocess.run([ffmpeg_room.executable(), "-i", copy], capture_output=True, text=True, check=False).stderr
    assert said.count("Stream #") == 1


def made_here(path: Path, count: int = 37) -> Path:
    rng = np.random.default_rng(count)
    with ClipWriter(path, WIDTH, HEIGHT, 12, f'{{"prompt": "{SECRET}"}}') as clip:
        clip.write(rng.integers(0, 255, (count, HEIGHT, WIDTH, 3), dtype=np.uint8))
    return path


def test_a_video_of_ours_is_copied_without_its_recipe_and_without_growing(tmp_path: Path) -> None:
    source, copy = made_here(tmp_path / "ours.mp4"), tmp_path / "copy.mp4"
    assert take_clip(source, copy) == check_clip(copy) == check_clip(source)
    assert_same(source, copy, (12, 24, 30000 / 1001))
    assert copy.stat().st_size < source.stat().st_size
    assert SECRET.encode() not in copy.read_bytes()
    with pytest.raises(MediaError, match="no recipe"):
        read_recipe_text(copy)


def test_our_tag_on_another_video_changes_nothing(tmp_path: Path, base: Path) -> None:
    # Cut between key frames: the file tells players to leave out frames that are in it.
    source, copy = tmp_path / "cut.mp4", tmp_path / "copy.mp4"
    ffmpeg("-i", base, "-pix_fmt", "yuv420p", tmp_path / "whole.mp4")
    tag = ["-metadata", 'comment={"a": 1}']
    ffmpeg("-ss", "0.7", "-i", tmp_path / "whole.mp4", "-c", "copy", *tag, source)
    assert read_recipe_text(source)
    take_clip(source, copy)
    assert_same(source, copy)


def test_the_same_upload_gives_the_same_bytes(tmp_path: Path, base: Path) -> None:
    for kind in ("mp4, BT.709", "gif"):
        source = upload(base, tmp_path, kind)
        take_clip(source, tmp_path / "a")
        take_clip(source, tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_upload_with_endless_tags_is_taken_all_the_same(tmp_path: Path, base: Path) -> None:
    source, copy = tmp_path / "upload.mkv", tmp_path / "copy"
    tags = tmp_path / "tags"
    tags.write_text(";FFMETADATA1\n" + "".join(f"key{n}={SECRET}\n" for n in range(2000)))
    ffmpeg("-i", base, "-f", "ffmetadata", "-i", tags, "-map_metadata", "1", "-pix_fmt", "yuv420p", source)
    look = intake_room.clip_look(source)
    assert look is not None, "what ffmpeg says of the tags is longer than what is kept of it, and the look comes last"
    assert (look.format, look.width, look.height) == ("yuv420p", WIDTH, HEIGHT)
    take_clip(source, copy)
    assert_same(source, copy)
    assert SECRET.encode() not in copy.read_bytes()


def test_a_clip_may_be_taken_in_the_place_of_another(tmp_path: Path, base: Path) -> None:
    source = upload(base, tmp_path, "gif")
    kept = frames_of(source, (96, 64), "crop", 12.5)
    take_clip(source, source)
    assert np.array_equal(frames_of(source, (96, 64), "crop", 12.5), kept)
    assert source.read_bytes()[4:8] == b"ftyp"
