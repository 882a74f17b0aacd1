"""Picture files of every usual kind -> one upright 8-bit sRGB picture on white."""

import io
import math
import threading
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, UnidentifiedImageError

from trainers.data.types import shown
from trainers.errors import UserError

ENDINGS = frozenset(".png .apng .jpg .jpeg .jpe .jfif .webp .bmp .dib .gif .avif .heic .heif .hif .tif .tiff".split())
OTHER_PICTURES = frozenset(
    ".svg .psd .xcf .kra .jxl .jp2 .ico .tga .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf".split()
)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "AVIF", "HEIF", "TIFF")  # not EPS, which runs a program
BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")
LARGEST = 300_000_000  # pixels; Pillow holds 4 bytes for each
BOMB, PACKED = 200_000_000, 200  # bytes unpacked, and how many times the file that is: photographs reach some 50
LARGEST_FILE = 1 << 30  # bytes
HUGE = 40_000_000  # pixels; above this, one picture at a time

# Pillow refuses pictures above 179 megapixels as decompression bombs. Real panoramas are larger: the limit is ours.
Image.MAX_IMAGE_PIXELS = None
pillow_heif.register_heif_opener()

_one_at_a_time = threading.Lock()
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # EXIF tag


class Unreadable(Exception):
    """Why a file is no usable picture, in words."""


def open_picture(path: Path, content_hash: str | None = None) -> Image.Image:
    """The picture as upright 8-bit RGB: alpha over white, deep greyscale scaled, colours converted to sRGB.

    Raises:
        UserError: if the file is gone or damaged, or, where `content_hash` is given, no longer has those bytes.
    """
    try:
        data = read_bytes(path)
        if content_hash and sha256(data).hexdigest() != content_hash:
            raise UserError(f"{shown(path)} was changed after this run began.", "Resume it: the new one is taken.")
        return decode(data)
    except (OSError, Unreadable) as error:
        why = error.strerror if isinstance(error, OSError) else error
        message = f"{shown(path)} could be read before, but cannot any more: {why}"
        raise UserError(message, "Put it back, or leave it out, and resume.") from error


def read_bytes(path: Path) -> bytes:
    """A picture file's bytes. OSError where it cannot be read; Unreadable where it is larger than pictures are."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise Unreadable(f"{size / 2**30:.1f} GB are more than a picture has.")
    return path.read_bytes()


def decode(data: bytes, side: int = 0) -> Image.Image:
    """Bytes of a picture file -> upright 8-bit sRGB. Raises Unreadable.

    With `side`, a JPEG may come smaller, in a part of the time, with a longer side of at least so many pixels.
    """
    image = _open(data)
    with _turn(image):
        try:
            if side and image.format in ("JPEG", "MPO"):
                image.draft(image.mode, [math.ceil(pixels * side / max(image.size)) for pixels in image.size])
            image.load()
            turn = _UPRIGHT.get(_orientation(image))  # after load(): TIFF and HEIF turn themselves and say so then
            upright = image.transpose(turn) if turn is not None else image
            return _to_rgb(upright, image.info.get("icc_profile"))
        except Exception as error:  # a damaged file can trip a decoder in any way
            raise Unreadable(_reason(error)) from error


def inspect(data: bytes) -> tuple[int, int]:
    """Decode a picture to its last byte and tell its upright (width, height). Raises Unreadable."""
    image = _open(data)
    with _turn(image):
        try:
            size = None
            if image.format in ("JPEG", "MPO"):  # an eighth of the size: reads every byte, spares the arithmetic
                size = image.size
                image.draft(image.mode, (1, 1))
            image.load()
            width, height = size or image.size
            corner = image.crop((0, 0, min(32, image.width), min(32, image.height)))
            _to_rgb(corner, image.info.get("icc_profile"))
            return (height, width) if _orientation(image) >= 5 else (width, height)
        except Exception as error:  # a damaged file can trip a decoder in any way
            raise Unreadable(_reason(error)) from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise Unreadable("the file is empty (0 bytes).")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if data.startswith(BEGINNINGS) or data[4:8] == b"ftyp":  # the latter: HEIC and AVIF
            raise Unreadable("it is damaged or cut off.") from error
        raise Unreadable("this is not a picture, whatever its ending says.") from error
    except Exception as error:  # a damaged header can trip a decoder in any way
        raise Unreadable(_reason(error)) from error
    if math.prod(image.size) > LARGEST:
        raise Unreadable(f"{image.width}x{image.height} pixels are more than the {LARGEST // 10**6} million that fit.")
    unpacked = math.prod(image.size) * (1 / 8 if image.mode == "1" else len(image.getbands()))
    if unpacked > max(BOMB, PACKED * len(data)):
        told = f"{image.width}x{image.height} pixels come out of {len(data):,} bytes"
        raise Unreadable(f"its {told}: it is made to fill the memory.")
    return image


def _turn(image: Image.Image) -> AbstractContextManager:
    """Huge pictures wait for each other, so that a few threads do not fill the memory."""
    return _one_at_a_time if math.prod(image.size) > HUGE else nullcontext()


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory to open it."
    return f"it is damaged or cut off ({' '.join(str(error).split()).rstrip('.') or type(error).__name__})."


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Any Pillow mode -> RGB over white, in sRGB where the file says what colours it holds."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    alpha = None
    if image.has_transparency_data or image.mode in ("PA", "RGBa", "La"):
        grey = image.mode in ("L", "LA", "La")
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")  # a grey colour profile fits grey only
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "P":
        image = image.convert("RGB")
    image = _to_srgb(image, profile)
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _eight_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits or floats -> L, from the full scale of its number format to 0..255.

    I;16 goes up to 65535. Wider formats do not say where white is: it is the least of 1 (floats), 255, 65535 and the
    largest value that holds every pixel; a picture with negative values is stretched from its least to its largest.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif low >= 0:
        scales = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        low, high = 0.0, next((scale for scale in scales if high <= scale), high)
    grey = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """L, RGB, CMYK, YCbCr, LAB or HSV -> RGB, through the embedded colour profile where it fits the picture."""
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), _srgb(), outputMode="RGB")
    if profile and image.mode in ("L", "RGB", "CMYK"):
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if not ImageCms.getProfileDescription(embedded).startswith("sRGB"):
                return ImageCms.profileToProfile(image, embedded, _srgb(), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # damaged, or meant for another kind of picture (an RGB profile in a grey one): go without
    return image.convert("RGB")


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.createProfile("sRGB")
