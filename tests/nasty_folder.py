"""A folder of pictures as nasty as people's folders get, and what is true of it."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

TRIGGER = "zorb"
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")  # a Latin-1 name on a file system of bytes


@dataclass
class Nasty:
    """`usable` are paths relative to `folder`; `broken` and `odd` map such paths to words of their problem."""

    folder: Path
    usable: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)  # left out of training
    odd: dict[str, str] = field(default_factory=dict)  # trained, or no picture at all, but worth saying


def build(folder: Path) -> Nasty:
    """Make the folder. What a system cannot hold (links, pipes, some names, permissions) is left out there."""
    pillow_heif.register_heif_opener()
    nasty = Nasty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _good(nasty)
    _captions(nasty)
    _broken(nasty)
    _what_the_system_allows(nasty)
    return nasty


def snapshot(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Relative path -> (sha256 of the bytes or "", time of last change in ns, mode), folders and links included."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):  # a file that came and went shows in its folder's time
        status = path.lstat()
        readable = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if readable else ""
        found[path.relative_to(folder).as_posix()] = (content, status.st_mtime_ns, status.st_mode)
    return found


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A smooth coloured picture that differs by seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def rotated(orientation: int) -> bytes:
    """An EXIF block that says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _good(nasty: Nasty) -> None:
    def add(name: str, image: Image.Image, **options: object) -> None:
        path = nasty.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
        nasty.usable.append(name)

    add("plain.png", picture(80, 60, 1))
    add("with space and (brackets).jpg", picture(60, 80, 2))
    add("it's 100% \u201cquoted\u201d & co;.png", picture(64, 64, 3))
    add("\U0001f98a fox.png", picture(64, 64, 4))
    add("f\u00fcchse/\u6f22\u5b57 \u0416.webp", picture(90, 64, 5))
    add("f\u00fcchse/deep/er/plain.png", picture(64, 90, 6))  # the same name again, in another folder
    add("a folder called.png/inside.png", picture(64, 64, 25))
    add("panorama.jpg", picture(20_000, 300, 7))
    add("cmyk.jpg", picture(64, 64, 8).convert("CMYK"))
    add("phone.heic", picture(96, 48, 9), format="HEIF", exif=rotated(6))
    add("camera.JPG", picture(96, 48, 10), format="JPEG", exif=rotated(8))
    add("palette.gif", picture(64, 64, 11).quantize(16), transparency=0)
    add("grey16.png", Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16))
    add("alpha.png", _with_alpha(picture(64, 64, 12)))
    add("scan.tiff", picture(64, 64, 13))
    add("new.avif", picture(64, 64, 14))
    add("old.bmp", picture(64, 64, 15))
    add("really a jpeg.png", picture(64, 64, 16), format="JPEG")
    add("twin.png", picture(64, 64, 17))
    add("twin.jpg", picture(64, 64, 18))
    add("first.png", picture(64, 64, 19))
    (nasty.folder / "second.png").write_bytes((nasty.folder / "first.png").read_bytes())
    nasty.usable.append("second.png")
    nasty.odd |= {"second.png": "same picture as", "twin.jpg": "same name as twin.png"}


def _captions(nasty: Nasty) -> None:
    def write(name: str, data: bytes) -> None:
        (nasty.folder / name).write_bytes(data)

    write("plain.txt", f"a {TRIGGER} on a table\r\n".encode())
    write("cmyk.txt", f"\u201ca {TRIGGER}\u201d at the caf\u00e9, 5 \u20ac".encode("cp1252"))
    write("scan.txt", f"\ufeffein {TRIGGER} f\u00fcr alle".encode())
    write("old.caption", f"{TRIGGER}, \u6f22\u5b57".encode("utf-16"))
    write("twin.txt", f"a {TRIGGER} twin".encode())
    write("first.txt", b" \r\n ")
    write("alpha.txt", b"a thing without the word")
    write("nobody.txt", b"a caption of no picture")
    nasty.odd |= {"first.txt": "empty", "nobody.txt": "no picture", "alpha.png": TRIGGER}
    nasty.odd["cmyk.jpg"] = "not UTF-8, and read as Windows-1252"


def _broken(nasty: Nasty) -> None:
    def write(name: str, data: bytes, words: str) -> None:
        (nasty.folder / name).write_bytes(data)
        nasty.broken[name] = words

    whole = nasty.folder / "with space and (brackets).jpg"
    write("cut off.jpg", whole.read_bytes()[: whole.stat().st_size * 2 // 3], "cut off")
    write("half.heic", (nasty.folder / "phone.heic").read_bytes()[:-40], "cut off")
    write("empty.png", b"", "0 bytes")
    write("letter.png", b"Dear diary, this is no picture.\n", "not a picture")
    write("page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "not a picture")
    picture(1, 1, 20).save(nasty.folder / "dot.png")
    write("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG")
    nasty.broken["dot.png"] = "too few"
    for hidden in (".hidden.png", "Thumbs.db", ".DS_Store", "._plain.png"):
        (nasty.folder / hidden).write_bytes(b"nothing that concerns a person")
    (nasty.folder / "__MACOSX").mkdir()
    (nasty.folder / "__MACOSX" / "ghost.png").write_bytes(b"nothing that concerns a person")


def _what_the_system_allows(nasty: Nasty) -> None:
    folder = nasty.folder
    try:
        picture(64, 64, 21).save(folder / NOT_UTF8)
        nasty.usable.append(NOT_UTF8)
        for seed, name in ((22, "two\nlines.png"), (24, 'the "best" one.png')):
            picture(64, 64, seed).save(folder / name)
            nasty.usable.append(name)
    except (OSError, UnicodeError):
        pass  # macOS and Windows refuse such names
    try:
        (folder / "gone.jpg").symlink_to(folder / "not there.jpg")
        nasty.broken["gone.jpg"] = "not there"
        (folder / "ring.png").symlink_to(folder / "ring.png")  # nobody can open it, not even root
        nasty.broken["ring.png"] = "cannot be opened"
        (folder / "loop").symlink_to(folder, target_is_directory=True)
    except OSError:
        pass  # Windows asks for a right to make links
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
        nasty.broken["pipe.png"] = "ordinary file"
    secret = folder / "secret.png"
    picture(64, 64, 23).save(secret)
    secret.chmod(0)
    if os.access(secret, os.R_OK):  # root, and Windows, read it all the same
        nasty.usable.append(secret.name)
    else:
        nasty.broken[secret.name] = "no permission"


def _with_alpha(image: Image.Image) -> Image.Image:
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (16, 16, 48, 48))
    image.putalpha(alpha)
    return image
