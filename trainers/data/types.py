"""What the data code hands from one step to the next."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Bucket:
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """One usable picture: `size` is (width, height) after EXIF transposition; `content_hash` is sha256 of the file's bytes."""

    path: Path
    caption: str
    size: tuple[int, int]
    content_hash: str
    repeats: int = 1


@dataclass(frozen=True)
class Problem:
    """Something a person should know about a file: `fatal` ones are left out of training."""

    path: Path
    message: str
    hint: str = ""
    fatal: bool = True


@dataclass(frozen=True)
class Scan:
    examples: list[Example]
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Crop:
    """Resize the picture to `scaled`, then cut `bucket` out at (left, top); `lost` is the share of its area cut away."""

    bucket: Bucket
    scaled: tuple[int, int]
    left: int
    top: int
    lost: float
