"""Safetensors headers, read and checked without loading a tensor.

The format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes without gaps
(https://github.com/huggingface/safetensors).
"""

import math
import zipfile
from pathlib import Path

from trainers import json_values
from trainers.errors import UserError

Shapes = dict[str, tuple[int, ...]]

PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # the protocols torch has written
AGAIN = "Download it again."
ANOTHER = "Download it again, or choose another model file."
MAX_HEADER = 16 << 20  # bytes; the library allows 100 MB, which as JSON fill gigabytes, and real ones have few
SET_ASIDE, TAIL = 1 << 24, 1 << 20  # bytes; smaller files arrive at once, and may end in a tensor of zeros
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8}
BITS |= {"F8_E5M2FNUZ": 8, "BF16": 16, "F16": 16, "F32": 32, "F64": 64, "C64": 64}
BITS |= {f"{kind}{bits}": bits for kind in "IU" for bits in (8, 16, 32, 64)}


def read_header(path: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Tensor entries (`dtype`, `shape`, `data_offsets`) by name, and the metadata.

    UserError when the file is no safetensors file, or is not whole.
    """
    size, start = look_at(path)
    length = int.from_bytes(start[:8], "little")
    # Its first bytes may by chance be another format's mark, so a file that begins as it should is not asked further.
    if length > MAX_HEADER or start[8:9] != b"{":
        refuse_lookalikes(path, start)
    if length > MAX_HEADER or start[8:9] not in (b"{", b""):
        raise UserError(f"{path.name} is not a safetensors file.", ANOTHER)
    if len(start) < 8 or 8 + length > size:
        raise UserError(f"{path.name} ends inside its header: the download was interrupted.", AGAIN)
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        header = json_values.parse(text)
        metadata = header.pop("__metadata__", None) or {}
        told = {str(key): str(value) for key, value in metadata.items()}
        ends = [_checked_end(entry) for entry in header.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path.name} has a damaged header ({type(error).__name__}).", AGAIN) from error
    _check_size(path, size, 8 + length + max(ends, default=0))
    _check_gaps(path, header)
    _check_tail(path, size)
    return header, told


def tensors_start(path: Path) -> int:
    """Where the tensors' bytes begin in a file that `read_header` has checked."""
    return 8 + int.from_bytes(look_at(path)[1][:8], "little")


def read_shapes(path: Path) -> tuple[Shapes, dict[str, str]]:
    """Tensor shapes by name, and the metadata; checks like `read_header`."""
    header, metadata = read_header(path)
    return {name: tuple(entry["shape"]) for name, entry in header.items()}, metadata


def check_pickle(path: Path) -> None:
    """UserError when a .ckpt, .pt or .bin file is visibly not what PyTorch writes, or not whole. Opens no pickle."""
    _, start = look_at(path)
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):  # its table of contents stands at the end
            raise UserError(f"{path.name} is cut off: the download was interrupted.", AGAIN)
    elif not start.startswith(PICKLE_STARTS):
        refuse_lookalikes(path, start)
        if int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:9] == b"{":
            raise UserError(f"{path.name} is a safetensors file.", "Rename it to end in .safetensors.")
        raise UserError(f"{path.name} is not a PyTorch model file.", ANOTHER)


def look_at(path: Path) -> tuple[int, bytes]:
    """Size and first 512 bytes. UserError when the file is missing, unreadable or empty."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", "Check its permissions.") from error
    if size == 0:
        raise UserError(f"{path.name} is empty (0 bytes): the download did not begin.", AGAIN)
    return size, start


def refuse_lookalikes(path: Path, start: bytes) -> None:
    """UserError naming what else a file is: a git-lfs pointer, a web page, a text, a pickle, an archive."""
    if not start.strip(b"\0"):
        raise UserError(f"{path.name} is filled with zeros: the download was interrupted.", AGAIN)
    words = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if words.startswith(b"version https://git-lfs"):
        raise UserError(f"{path.name} is a git-lfs pointer, not the model itself.", "Run `git lfs pull` in its folder.")
    if words.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{path.name} is a web page, not a model: the site sent its login or error page.",
            "Open the link in a browser, and save the file from there.",
        )
    if start.startswith((b"PK\x03\x04", *PICKLE_STARTS)):
        raise UserError(
            f"{path.name} is a pickled PyTorch file or an archive, not a safetensors file.",
            "If it is a model, rename it to end in .ckpt.",
        )
    if start.startswith(b"GGUF"):
        raise UserError(f"{path.name} is a GGUF file, which cannot be trained on.", "Choose the .safetensors version.")
    if _is_text(start):
        raise UserError(f"{path.name} is a text file, not a model.", ANOTHER)


def _is_text(start: bytes) -> bool:
    # A header length is below 2**32 in any real file, so bytes 4 to 8 are zeros there, and zeros are in no text.
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(start) < 512 or error.start < 509:  # not just a letter cut in two by the 512-byte window
            return False
        text = start[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)


def _checked_end(entry: dict) -> int:
    """The offset where a tensor ends; ValueError when its entry contradicts itself."""
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    numbers = [begin, end, *shape]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("negative or fractional size")
    if type(entry["dtype"]) is not str or len(entry["dtype"]) > 20:
        raise ValueError("no number format")
    bits = BITS.get(entry["dtype"])
    if bits and end - begin != math.prod(shape) * bits // 8:
        raise ValueError("offsets do not fit the shape")
    return end


def _check_size(path: Path, size: int, wanted: int) -> None:
    if size < wanted:
        tells = 1e5 < size < wanted - 1e5  # in megabytes it would read "1.1 of 1.1"
        share = f"{size / 1e6:,.1f} of {wanted / 1e6:,.1f} MB" if tells else f"{size:,} of {wanted:,} bytes"
        raise UserError(f"{path.name} is cut off ({share}): the download was interrupted.", AGAIN)
    if size > wanted:
        raise UserError(f"{path.name} has {size - wanted:,} bytes more than its header lists: it is damaged.", AGAIN)


def _check_tail(path: Path, size: int) -> None:
    """Some download tools set the file's full size aside first: what did not arrive is zeros."""
    if size < SET_ASIDE:
        return
    with path.open("rb") as file:
        file.seek(-TAIL, 2)
        if not file.read(TAIL).strip(b"\0"):
            raise UserError(f"{path.name} ends in zeros: the download was interrupted.", AGAIN)


def _check_gaps(path: Path, header: dict[str, dict]) -> None:
    place = 0
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in header.values()):
        if begin != place:
            raise UserError(f"{path.name} has a damaged header: its tensors overlap or leave gaps.", AGAIN)
        place = end
