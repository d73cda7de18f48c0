"""Pictures: what they are, whether they are sound, and their pixels at a model's size.

Importing this module lowers Pillow's own pixel limit and makes its warning an error for the whole process, because
other libraries in it (the web page's among them) open uploads with Pillow too. It also silences libtiff.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, _imaging

from pusa_app.errors import MediaError
from pusa_app.media._files import StrPath, label, readable_file
from pusa_app.media.fit import Fit, Focus, Frames, crop_box, scaled_size

MAX_IMAGE_PIXELS = 64_000_000
MAX_IMAGE_BYTES = 400_000_000  # the largest picture, uncompressed, with alpha
IMAGE_TIMEOUT = 20.0
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

_ORIENTATION = 0x0112
_MAX_PROFILE_BYTES = 4_000_000
_BACKGROUND = (255, 255, 255)
# A progressive JPEG can hold thousands of passes over its picture in a few kilobytes: small bites, time between them.
_BITE = 4096

Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)


def _silence_libtiff() -> None:
    """Pillow's libtiff prints what it thinks of a damaged file on standard error, beside the exception."""
    # Where the library is linked in statically (Windows) its functions cannot be found, and it goes on talking.
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


_silence_libtiff()


@dataclass(frozen=True)
class ImageInfo:
    """A sound picture: width and height in pixels as it is shown (EXIF orientation applied), and its format."""

    width: int
    height: int
    format: str


def check_image(path: StrPath) -> ImageInfo:
    """Decode the picture once. Raises MediaError when it is not a PNG, JPEG, WebP, BMP, GIF or TIFF, or not sound."""
    with _opened(path) as image:
        image.load()
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
            width, height = height, width
        # Phones write JPEGs with a second picture behind the first, which Pillow calls MPO.
        return ImageInfo(width, height, "JPEG" if image.format == "MPO" else str(image.format))


def load_image(path: StrPath, width: int, height: int, fit: Fit = "crop", focus: Focus = (0.5, 0.5)) -> Frames:
    """The picture as uint8 (height, width, 3), upright and in sRGB.

    crop fills the frame and cuts off what is outside, around `focus`; pad shows all of it between black bars.
    Transparency is laid over white. Of an animation, the first frame is taken. Raises MediaError as `check_image`.
    """
    with _opened(path) as image:
        fitted = _fit(_to_rgb(ImageOps.exif_transpose(image)), (width, height), fit, focus)
        return np.array(fitted, dtype=np.uint8)


def upright_image(path: StrPath) -> Frames:
    """All pixels of the picture as `load_image` sees them: uint8 (height, width, 3). Raises MediaError as it does."""
    with _opened(path) as image:
        return np.array(_to_rgb(ImageOps.exif_transpose(image)), dtype=np.uint8)


def _fit(image: Image.Image, target: tuple[int, int], fit: Fit, focus: Focus) -> Image.Image:
    lanczos = Image.Resampling.LANCZOS
    if fit == "crop":
        return image.resize(target, lanczos, box=crop_box(image.size, target, focus), reducing_gap=3.0)
    small = image.resize(scaled_size(image.size, target, "pad"), lanczos, reducing_gap=3.0)
    frame = Image.new("RGB", target)
    frame.paste(small, ((target[0] - small.width) // 2, (target[1] - small.height) // 2))
    return frame


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _deep_grey_to_rgb(image)
    profile = image.info.get("icc_profile")
    if not image.has_transparency_data:
        return _to_srgb(image.convert("RGB") if image.mode == "P" else image, profile)
    rgba = image.convert("RGBA")
    # A profile says what the colours are, not how much of them there is.
    shown = _to_srgb(image.getchannel(0) if image.mode in ("L", "LA") else rgba.convert("RGB"), profile)
    shown.putalpha(rgba.getchannel("A"))
    flat = Image.new("RGBA", rgba.size, (*_BACKGROUND, 255))
    flat.alpha_composite(shown)
    return flat.convert("RGB")


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    # Pillow clips such modes to 0..255 instead of scaling them.
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F":
        white = 1.0 if values.max() <= 1.0 else 255.0
    else:
        white = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0
    grey = np.clip(np.rint(values * (255.0 / white)), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """RGB, through the colour profile where there is one that fits (phones: Display P3; print: CMYK; scans: grey)."""
    if isinstance(profile, bytes) and len(profile) <= _MAX_PROFILE_BYTES and image.mode in ("RGB", "CMYK", "L"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if shown is not None:
                return shown
    return image.convert("RGB")


@contextlib.contextmanager
def _opened(path: StrPath) -> Iterator[Image.Image]:
    """The picture, opened but not decoded; whatever its content makes Pillow raise becomes a MediaError."""
    file = readable_file(path, "picture")
    name = label(path)
    if file.stat().st_size > MAX_IMAGE_BYTES:
        raise _too_large(name, f"{file.stat().st_size // 10**6} MB")
    try:
        with _TimedFile(file, IMAGE_TIMEOUT) as data, Image.open(data, formats=FORMATS) as image:
            image.decodermaxblock = _BITE
            # Pillow only warns at its limit, and a warning filter can be changed by anybody.
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise _too_large(name, f"{image.width}x{image.height} pixels")
            yield image
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, f"more than {MAX_IMAGE_PIXELS // 1_000_000} megapixels") from None
    except _TooSlow:
        raise MediaError(
            f"{name} took more than {IMAGE_TIMEOUT:.0f} s to open: save the picture again as PNG or make it smaller."
        ) from None
    except UnidentifiedImageError:
        raise MediaError(
            f"{name} is not a picture that can be read: use a PNG, JPEG, WebP, BMP, GIF or TIFF file."
        ) from None
    except MemoryError:
        raise MediaError(f"There is not enough memory to open {name}: make the picture smaller.") from None
    except Exception as error:
        # Decoders meet hostile bytes and raise anything: OSError, SyntaxError, struct.error, ValueError, EOFError ...
        raise MediaError(f"{name} is damaged or cut off: copy or export the picture again.") from error


class _TooSlow(Exception):
    """A picture was not read in time."""


class _TimedFile(io.FileIO):
    """A file that is not read any more after `timeout` seconds; then it raises _TooSlow."""

    def __init__(self, path: StrPath, timeout: float) -> None:
        super().__init__(path)
        self._deadline = time.monotonic() + timeout

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() > self._deadline:
            raise _TooSlow
        return super().read(-1 if size is None else size) or b""


def _too_large(name: str, size: str) -> MediaError:
    limit = MAX_IMAGE_PIXELS // 1_000_000
    return MediaError(f"{name} is too large ({size}): make it smaller than {limit} megapixels.")
