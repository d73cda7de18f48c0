"""HDR and wide-gamut clips come out as the sRGB pictures they stand for; all others are left alone, to the bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from pusa_app.errors import MediaError
from pusa_app.media import _ffmpeg as ffmpeg_room
from pusa_app.media import check_clip, count_frames, export_clip, load_clip, read_frames, take_clip
from pusa_app.media import clips as clips_room

SIDE, COUNT = 64, 6
LUMA = {"bt2020": (0.2627, 0.6780, 0.0593), "bt709": (0.2126, 0.7152, 0.0722)}
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
# Light in BT.709, 1 is the white of paper: 203 cd/m2 (BT.2408).
PAPER, GREY, RED, GREEN, SKIN = (1, 1, 1), (0.18, 0.18, 0.18), (1, 0, 0), (0, 1, 0), (0.5, 0.35, 0.25)


def ffmpeg(*arguments: str | Path, data: bytes | None = None) -> bytes:
    command = [ffmpeg_room.executable(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, timeout=60, input=data, capture_output=True).stdout


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: code values of light in units of paper white."""
    power = np.clip(light * 203 / 10_000, 0, 1) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """BT.2100: code values of light in units of paper white, on a screen of 1000 cd/m2 (system gamma 1.2)."""
    shown = np.clip(light, 0, None) * 203 / 1000
    luminance = max(float(shown @ LUMA["bt2020"]), 1e-9)
    scene = shown * luminance ** (1 / 1.2 - 1)
    logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm)


def srgb(light: tuple[float, ...]) -> np.ndarray:
    value = np.asarray(light, float)
    return 255 * np.where(value <= 0.0031308, 12.92 * value, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)


def field(path: Path, code: np.ndarray, tags: str, matrix: str = "bt2020", coding: tuple[str, ...] = ()) -> Path:
    """A clip of one colour, R'G'B' code values in 0..1, as 10 bits of Y'CbCr."""
    weights = np.array(LUMA[matrix])
    luma = float(code @ weights)
    planes = 64 + 876 * luma, *(512 + 448 * (code[i] - luma) / (1 - weights[i]) for i in (2, 0))
    frame = b"".join(np.full((SIDE, SIDE), round(level), "<u2").tobytes() for level in planes)
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-video_size", f"{SIDE}x{SIDE}", "-framerate", "12"),
        *("-i", "pipe:0", "-vf", f"setparams={tags}"),
        *(coding or ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p10le")),
        path,
        data=frame * COUNT,
    )
    return path


def hdr(path: Path, light: tuple[float, ...], transfer: str, coding: tuple[str, ...] = (), tags: str = "") -> Path:
    code = (hlg if transfer == "arib-std-b67" else pq)(TO_2020 @ np.array(light, float))
    tags = tags or "range=tv:colorspace=bt2020nc:color_primaries=bt2020"
    return field(path, code, f"{tags}:color_trc={transfer}", coding=coding)


def colour(path: Path, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """The one colour of the clip, as `load_clip` sees it."""
    frames = load_clip(path, *size, fps=12, num_frames=COUNT).reshape(-1, 3).astype(int)
    assert np.ptp(frames, axis=0).max() <= 1
    return frames[0]


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
@pytest.mark.parametrize(("light", "tolerance"), [(PAPER, 12), (RED, 20), (GREEN, 20), (GREY, 2), (SKIN, 2)], ids=str)
def test_hdr_is_shown_as_sdr(tmp_path: Path, transfer: str, light: tuple[float, ...], tolerance: int) -> None:
    path = hdr(tmp_path / "a.mp4", light, transfer)
    assert colour(path) == pytest.approx(srgb(light), abs=tolerance)
    assert colour(path, (96, 40)) == pytest.approx(srgb(light), abs=tolerance), "at another size"


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_highlights_keep_their_order_and_what_is_brightest_is_white(tmp_path: Path, transfer: str) -> None:
    lights = (1, 1.5, 2.5, 4.9)
    levels = [int(colour(hdr(tmp_path / "a.mp4", (light,) * 3, transfer)).min()) for light in lights]
    assert levels == sorted(set(levels))
    assert levels[-1] >= 254


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("a.mp4", ("-c:v", "libx265", "-x265-params", "log-level=0:lossless=1", "-pix_fmt", "yuv420p10le")),
        ("a.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-lossless", "1", "-pix_fmt", "yuv420p10le")),
        ("a.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le")),
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv444p10le")),
        ("a.mkv", ("-vf", "setparams=range=tv:color_trc=arib-std-b67,scale=61:47,format=yuv420p10le", "-c:v", "ffv1")),
    ],
    ids=["HEVC", "VP9", "ProRes", "FFV1", "odd size, only the transfer told"],
)
def test_every_way_to_a_clip_sees_the_same_colours(tmp_path: Path, name: str, coding: tuple[str, ...]) -> None:
    path, copy = hdr(tmp_path / name, SKIN, "arib-std-b67", coding), tmp_path / "copy.mp4"
    assert colour(path) == pytest.approx(srgb(SKIN), abs=4)
    take_clip(path, copy)
    assert count_frames(copy, 12) == count_frames(path, 12) == COUNT
    loaded = load_clip(path, 40, 30, fps=12, num_frames=COUNT)
    assert np.array_equal(load_clip(copy, 40, 30, fps=12, num_frames=COUNT), loaded)
    assert read_frames(path).mean((0, 1, 2)) == pytest.approx(colour(path), abs=1)


@pytest.mark.parametrize("tags", ["range=tv", "range=tv:colorspace=bt2020nc", "range=tv:color_primaries=bt2020"])
def test_a_transfer_alone_says_that_it_is_bt2020(tmp_path: Path, tags: str) -> None:
    path, copy = hdr(tmp_path / "a.mp4", SKIN, "smpte2084", tags=tags), tmp_path / "copy.mp4"
    assert colour(path) == pytest.approx(srgb(SKIN), abs=2)
    take_clip(path, copy)
    assert np.array_equal(colour(copy), colour(path))


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "frames"])
def test_exports_are_sdr_too(tmp_path: Path, kind: str) -> None:
    path, out = hdr(tmp_path / "a.mp4", SKIN, "arib-std-b67"), tmp_path / "out"
    export_clip(path, out, kind, quality="high" if kind in ("mp4", "webm") else None)
    if kind == "frames":
        shown = ffmpeg("-i", "pipe:0", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1", data=png_of(out))
        assert np.frombuffer(shown, np.uint8)[:3].astype(int) == pytest.approx(srgb(SKIN), abs=3)
    else:
        assert read_frames(out)[0, 20, 20].astype(int) == pytest.approx(srgb(SKIN), abs=5)


def png_of(archive: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(archive) as file:
        return file.read("frame-000000.png")


@pytest.mark.parametrize("primaries", ["bt2020", "smpte432"])
def test_a_wide_gamut_is_brought_to_srgb(tmp_path: Path, primaries: str) -> None:
    wide = {
        "bt2020": TO_2020,
        "smpte432": np.array([[0.8225, 0.1774, 0], [0.0332, 0.9669, 0], [0.0171, 0.0724, 0.9108]]),
    }
    light = np.clip(wide[primaries] @ np.array(SKIN), 0, None) ** (1 / 2.4)
    tags = f"range=tv:colorspace=bt709:color_primaries={primaries}:color_trc=bt709"
    assert colour(field(tmp_path / "a.mp4", light, tags, "bt709")) == pytest.approx(
        255 * np.array(SKIN) ** (1 / 2.4), abs=3
    )


SDR = {
    "nothing told": "range=tv",
    "BT.601": "range=tv:colorspace=smpte170m:color_primaries=smpte170m:color_trc=smpte170m",
    "BT.709": "range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709",
    "full range": "range=pc:colorspace=bt709:color_primaries=bt709:color_trc=bt709",
    "PAL": "range=tv:colorspace=bt470bg:color_primaries=bt470bg:color_trc=bt470bg",
}


@pytest.mark.parametrize("tags", SDR.values(), ids=SDR)
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_sdr_is_decoded_and_scaled_and_nothing_else(tmp_path: Path, tags: str, pixels: str) -> None:
    path = tmp_path / "a.mp4"
    source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=96x64:rate=12:duration=0.5",
        "-vf",
        f"format={pixels},setparams={tags}",
    ]
    ffmpeg(*source, "-c:v", "libx264", "-pix_fmt", pixels, path)
    scaled = "scale=48:32:flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp,format=rgb24"
    raw = ffmpeg("-i", path, "-vf", scaled, "-f", "rawvideo", "pipe:1")
    wanted = np.frombuffer(raw, np.uint8).reshape(-1, 32, 48, 3)
    assert np.array_equal(load_clip(path, 48, 32, fps=12, num_frames=6), wanted)


def test_an_ffmpeg_that_cannot_say_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdr(tmp_path / "a.mp4", RED, "smpte2084")
    plain = field(tmp_path / "b.mp4", np.array(SKIN), SDR["BT.709"], "bt709")
    wide = field(tmp_path / "c.mp4", np.array(SKIN), SDR["BT.709"].replace("primaries=bt709", "primaries=smpte432"))
    monkeypatch.setattr(clips_room, "can_convert", lambda: False)
    for read in (check_clip, lambda file: take_clip(file, tmp_path / "copy.mp4"), colour):
        with pytest.raises(MediaError, match=r"^a\.mp4 is an HDR clip.* zscale .*: export it as SDR"):
            read(path)
    for other in (plain, wide):
        check_clip(other)
        colour(other)


def test_long_tags_and_notes_of_the_encoder_do_not_hide_that_a_clip_is_hdr(tmp_path: Path) -> None:
    tags = tmp_path / "tags"
    tags.write_text(";FFMETADATA1\n" + "".join(f"key{n}=color_trc:bt709 and so on\n" for n in range(2000)))
    source, path = hdr(tmp_path / "a.mp4", RED, "smpte2084"), tmp_path / "b.mkv"
    ffmpeg("-i", source, "-f", "ffmetadata", "-i", tags, "-map_metadata", "1", "-c", "copy", path)
    assert colour(path) == pytest.approx([255, 0, 0], abs=20)
