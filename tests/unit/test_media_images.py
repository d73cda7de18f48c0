"""Pictures: every format and mode comes out as the same upright RGB, every broken one as one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pusa_app.errors import MediaError
from pusa_app.media import ImageInfo, check_image, load_image
from pusa_app.media.fit import crop_box, scaled_size

QUARTERS = np.array([[(250, 10, 10), (10, 250, 10)], [(10, 10, 250), (240, 240, 10)]], np.uint8)
ORIENTATION = 0x0112


def quarters(size: int = 32) -> Image.Image:
    """Red and green above blue and yellow."""
    return Image.fromarray(QUARTERS.repeat(size // 2, 0).repeat(size // 2, 1))


def corners(pixels: np.ndarray) -> np.ndarray:
    """The middle pixel of each quarter, 2 x 2 x 3."""
    height, width = pixels.shape[:2]
    return pixels[np.ix_([height // 4, 3 * height // 4], [width // 4, 3 * width // 4])]


def close(a: np.ndarray, b: np.ndarray | tuple[int, ...], tolerance: int = 0) -> bool:
    return bool((np.abs(np.asarray(a, int) - np.asarray(b, int)) <= tolerance).all())


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 6),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("GIF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_every_format_is_known_by_content(tmp_path: Path, kind: str, options: dict, tolerance: int) -> None:
    path = tmp_path / "picture.txt"
    quarters().save(path, format=kind, **options)
    assert check_image(path) == ImageInfo(32, 32, kind)
    pixels = load_image(path, 32, 32)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (32, 32, 3)
    assert close(corners(pixels), QUARTERS, tolerance)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, upright) -> None:
    path = tmp_path / "phone.png"
    stored = np.asarray(quarters(32))[:, :24]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    shown = upright(stored)
    info = check_image(path)
    assert (info.height, info.width) == shown.shape[:2]
    assert close(load_image(path, info.width, info.height), shown)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :, 0] = 200
    pixels[:, :4, 3], pixels[:4, :4, 3] = 255, 128
    Image.fromarray(pixels).save(path)
    loaded = load_image(path, 8, 8)
    assert close(loaded[6, 1], (200, 0, 0))
    assert close(loaded[1, 1], (227, 127, 127), 1)
    assert close(loaded[1, 6], (255, 255, 255))


def test_transparent_palette_and_grey_with_alpha_are_laid_over_white_too(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (0, 0, 4, 8))
    palette.save(tmp_path / "p.png", transparency=0)
    loaded = load_image(tmp_path / "p.png", 8, 8)
    assert close(loaded[4, 1], (200, 100, 50))
    assert close(loaded[4, 6], (255, 255, 255))
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "la.png")
    assert close(load_image(tmp_path / "la.png", 8, 8), 255)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 130, (130, 130, 130)),
        ("1", 255, (255, 255, 255)),
        ("P", 1, (200, 100, 50)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_modes_become_rgb(tmp_path: Path, mode: str, value, expected: tuple[int, int, int]) -> None:
    path = tmp_path / "mode.tiff"
    image = Image.new(mode, (8, 8), value)
    if mode == "P":
        image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(path)
    assert close(load_image(path, 8, 8), np.broadcast_to(expected, (8, 8, 3)), 2)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray(ramp).save(tmp_path / "deep.tiff")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "float.tiff")
    for name in ("deep.png", "deep.tiff", "float.tiff"):
        loaded = load_image(tmp_path / name, 256, 4)
        assert close(loaded[0, :, 1], np.arange(256), 1), name


def test_sixteen_bit_colour_png(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", 65535, 32768, 257) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
    (tmp_path / "rgb48.png").write_bytes(png)
    assert close(load_image(tmp_path / "rgb48.png", 4, 4), np.broadcast_to((255, 128, 1), (4, 4, 3)), 1)


def test_a_colour_profile_is_honoured_and_a_broken_one_ignored(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    quarters().save(tmp_path / "same.png", icc_profile=srgb)
    quarters().save(tmp_path / "broken.png", icc_profile=b"not a profile")
    assert close(corners(load_image(tmp_path / "same.png", 32, 32)), QUARTERS, 1)
    assert close(corners(load_image(tmp_path / "broken.png", 32, 32)), QUARTERS)


def swapped_primaries() -> bytes:
    """A profile that must show: red and blue change places."""
    tags = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = tags.find(b"rXYZ"), tags.find(b"bXYZ")
    tags[red : red + 4], tags[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(tags)


def grey_profile(gamma: float) -> bytes:
    """The smallest profile of a grey picture: one curve, a white point."""
    d50 = struct.pack(">3i", 63190, 65536, 54061)
    white = b"XYZ \0\0\0\0" + d50
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    start = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", start, 20, b"kTRC", start + 20, 14)
    size = start + len(white) + len(curve)
    head = struct.pack(
        ">I4sI4s4s4s12x4s28x3i48x", size, b"", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp", 63190, 65536, 54061
    )
    return head + tags + white + curve


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "P, one colour transparent"])
def test_a_colour_profile_counts_in_every_mode(tmp_path: Path, mode: str) -> None:
    image = quarters().quantize(8) if mode.startswith("P") else quarters().convert(mode)
    more = {"transparency": bytes([255] * 7 + [0])} if mode.endswith("transparent") else {}
    image.save(tmp_path / "a.png", icc_profile=swapped_primaries(), **more)
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == mode.split(",", 1)[0]
        assert saved.has_transparency_data == (mode not in ("RGB", "P"))
    loaded = corners(load_image(tmp_path / "a.png", 32, 32))
    assert close(loaded[0, 0], (10, 10, 250), 12), "red is blue"
    assert close(loaded[1, 0], (250, 10, 10), 12), "and blue is red"


def test_what_is_transparent_keeps_its_share_under_a_profile(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (250, 10, 10, 128))
    image.paste((250, 10, 10, 0), (4, 0, 8, 8))
    image.save(tmp_path / "a.png", icc_profile=swapped_primaries())
    loaded = load_image(tmp_path / "a.png", 8, 8)
    assert close(loaded[4, 1], (132, 132, 252), 8)
    assert close(loaded[4, 6], (255, 255, 255))


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_profile_of_grey_is_honoured(tmp_path: Path, mode: str) -> None:
    Image.new("L", (8, 8), 128).convert(mode).save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    # Half the light, where the number alone would be a fifth of it.
    assert close(load_image(tmp_path / "a.png", 8, 8), 188, 2)
    # A profile of colours on a grey picture: grey stays grey.
    Image.new("L", (8, 8), 128).convert(mode).save(tmp_path / "b.png", icc_profile=swapped_primaries())
    assert close(load_image(tmp_path / "b.png", 8, 8), 128, 2)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for kind in ("gif", "webp", "png"):
        path = tmp_path / f"moving.{kind}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
        assert close(load_image(path, 8, 8), np.broadcast_to((255, 0, 0), (8, 8, 3)), 3), kind


def test_crop_keeps_what_is_in_focus(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    quarters(32).resize((64, 32), Image.Resampling.NEAREST).save(path)
    left = load_image(path, 32, 32, focus=(0, 0.5))
    right = load_image(path, 32, 32, focus=(1, 0.5))
    assert close(left[4, 16], QUARTERS[0, 0])
    assert close(right[4, 16], QUARTERS[0, 1])
    middle = load_image(path, 32, 32)
    assert close(middle[4, 4], QUARTERS[0, 0])
    assert close(middle[4, 28], QUARTERS[0, 1])


def test_pad_shows_everything_between_black_bars(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    quarters(32).resize((64, 32), Image.Resampling.NEAREST).save(path)
    padded = load_image(path, 32, 32, fit="pad")
    assert not padded[:8].any()
    assert not padded[24:].any()
    assert close(corners(padded[8:24]), QUARTERS, 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_extreme_shapes_fill_the_frame_exactly(tmp_path: Path, size: tuple[int, int], fit) -> None:
    path = tmp_path / "odd.png"
    Image.new("RGB", size, (90, 80, 70)).save(path)
    pixels = load_image(path, 48, 32, fit=fit)
    assert pixels.shape == (32, 48, 3)
    inked = pixels.any(axis=2)
    assert inked.all() if fit == "crop" else inked.any()
    assert close(pixels[inked], (90, 80, 70))


def test_crop_box_never_leaves_the_source() -> None:
    for source in [(10, 10), (97, 31), (31, 97), (1, 5000)]:
        for focus in [(0.0, 0.0), (1.0, 1.0), (0.3, 0.9), (-5.0, 7.0)]:
            left, top, right, bottom = crop_box(source, (48, 32), focus)
            assert 0 <= left < right <= source[0]
            assert 0 <= top < bottom <= source[1]
            assert (right - left) / (bottom - top) == pytest.approx(1.5)


def test_scaled_size_covers_or_fits() -> None:
    for source in [(10, 10), (97, 31), (31, 97), (1, 500)]:
        assert all(a >= b for a, b in zip(scaled_size(source, (48, 32), "crop"), (48, 32), strict=True))
        inside = scaled_size(source, (48, 32), "pad")
        assert all(1 <= a <= b for a, b in zip(inside, (48, 32), strict=True))


def test_the_result_can_be_written_to(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    pixels = load_image(tmp_path / "a.png", 16, 16)
    pixels[0, 0] = 7
    assert close(pixels[0, 0], (7, 7, 7))


def test_odd_names_are_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ["-v.png", "a b'%d.png", "日本 🎉.png", "http:x.png", "--help"]:
        buffer = io.BytesIO()
        quarters().save(buffer, format="PNG")
        Path(name).write_bytes(buffer.getvalue())
        assert check_image(name).width == 32


def test_no_message_has_a_second_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\x1b[31m.png"
    path.write_bytes(b"nothing")
    with pytest.raises(MediaError) as caught:
        check_image(path)
    assert str(caught.value).isprintable()
    assert "two?lines" in str(caught.value)
