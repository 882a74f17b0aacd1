"""What the data code hands from one step to the next."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Bucket:
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """One usable picture: `size` is (width, height), upright; `content_hash` is sha256 of the file's bytes in hex."""

    path: Path
    caption: str
    size: tuple[int, int]
    content_hash: str
    repeats: int = 1


@dataclass(frozen=True)
class Problem:
    """Something a person should know about a file: `fatal` ones are left out of training."""

    path: Path
    message: str  # goes on after the file's name and a colon
    hint: str = ""
    fatal: bool = True

    @property
    def name(self) -> str:
        """The file with its folder, safe to print: `cats/07.png`."""
        return shown(self.path)

    def __str__(self) -> str:
        return f"{self.name}: {self.message} {self.hint}".strip()


@dataclass(frozen=True)
class Scan:
    examples: list[Example]
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Crop:
    """Resize the picture to `scaled`, then cut `bucket` out at (left, top); `lost` is the share of area cut away."""

    bucket: Bucket
    scaled: tuple[int, int]
    left: int
    top: int
    lost: float


def shown(path: Path) -> str:
    """A file with its folder, as one printable line: `cats/07.png`."""
    return printable("/".join(path.parts[-2:]))


def printable(text: str) -> str:
    """On Linux a file name may hold line breaks, or bytes that are not UTF-8: those become question marks."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
