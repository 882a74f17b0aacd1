"""What has to be measured on a picture once: size, sharpness, likeness to others, or why it cannot be read."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from app.modesty import give_way, step_back
from app.paths import Home
from trainers import json_values
from trainers.data.decoding import Unreadable, decode, read_bytes
from trainers.data.examples import SMALLEST
from trainers.files import write_whole

MEASURED_AT = 256  # pixels of the longer side, so that a large picture and a small one are judged alike
BLURRED = 0.01  # sharpness below it; see `sharpness`
ROUNDING = 20 / 12  # variance of the Laplacian that rounding to whole greys makes: weights 4, -1 x 4; 1/12 each
ALIKE = 4  # bits of 64 in which the hashes of near-duplicates differ at most
SAVED_EVERY = 100  # pictures

Key = tuple[str, int, int]  # path, time of change in ns, bytes: the state of a file
IS_KEY = json_values.fits(Key)


@dataclass(frozen=True)
class Facts:
    """`size` is upright; `reason` says why a picture cannot be trained on, and is empty for a good one."""

    size: tuple[int, int] = (0, 0)
    content: str = ""  # sha256 of the file's bytes
    likeness: int = 0  # perceptual hash [imagehash.phash], 64 bits
    sharpness: float = 1.0
    reason: str = ""


class Measured:
    """Facts of pictures, kept in the home folder's cache and measured in a thread of their own.

    What a page shows is measured before the others (`hurry`), so that thousands of pictures do not hold it up.
    """

    def __init__(self, home: Home, measure: Callable[[Path], Facts] | None = None):
        self.folder = home.cache / "pictures"
        self.measure = measure or look_at
        self.known: dict[Key, Facts] = {}
        self.loaded: set[str] = set()  # folders whose facts of earlier days are in `known`
        self.wanted: list[tuple[str, Key]] = []  # (folder, file), the next one last
        self.waiting = threading.Condition()
        self.thread: threading.Thread | None = None

    def facts(self, folder: str, files: Sequence[Key]) -> dict[Key, Facts]:
        """What is known of the files of a folder now; what is not will be."""
        with self.waiting:
            if folder not in self.loaded:
                self.known |= self._read(folder)
                self.loaded.add(folder)
            found = {file: self.known[file] for file in files if file in self.known}
            self.wanted = [(folder, file) for file in reversed(files) if file not in found]
            if self.wanted and self.thread is None:
                self.thread = threading.Thread(target=self._work, daemon=True)
                self.thread.start()
        return found

    def hurry(self, paths: Iterable[Path]) -> None:
        """Measure these before the others."""
        urgent = {str(path) for path in paths}
        with self.waiting:
            self.wanted.sort(key=lambda one: one[1][0] in urgent)

    def wait(self) -> None:
        """Until everything asked for is measured."""
        with self.waiting:
            self.waiting.wait_for(lambda: self.thread is None)

    def _work(self) -> None:
        step_back()
        fresh: dict[str, int] = {}  # folder -> facts that are not saved yet
        while True:
            folder, key = self._next()
            if key is not None:
                give_way()
                facts = self.measure(Path(key[0]))
                with self.waiting:
                    self.known[key] = facts
                fresh[folder] = fresh.get(folder, 0) + 1
            for place in [place for place, count in fresh.items() if key is None or count >= SAVED_EVERY]:
                self._save(place)
                del fresh[place]
            with self.waiting:
                if key is None and not self.wanted:
                    self.thread = None
                    self.waiting.notify_all()
                    return

    def _next(self) -> tuple[str, Key | None]:
        with self.waiting:
            while self.wanted and self.wanted[-1][1] in self.known:
                self.wanted.pop()
            return self.wanted.pop() if self.wanted else ("", None)

    def _place(self, folder: str) -> Path:
        return self.folder / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"

    def _read(self, folder: str) -> dict[Key, Facts]:
        try:
            rows = json_values.read(self._place(folder))
            return {tuple(key): json_values.made(Facts, facts) for key, facts in rows if IS_KEY(key)}
        except (OSError, ValueError, TypeError):  # none yet, or damaged: they are measured again
            return {}

    def _save(self, folder: str) -> None:
        with self.waiting:
            newest = {key[0]: (key, facts) for key, facts in self.known.items() if _inside(key[0], folder)}
        rows = [[list(key), asdict(facts)] for key, facts in newest.values()]
        with suppress(OSError):  # a full disk: they are measured again next time
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._place(folder), json.dumps(rows).encode())


def look_at(path: Path) -> Facts:
    """Measure one picture, decoding it to its last byte."""
    try:
        data = read_bytes(path)
        picture = decode(data)
    except PermissionError:
        return Facts(reason="you have no permission to read it.")
    except OSError as error:
        return Facts(reason=f"it cannot be read: {error.strerror or error}.")
    except Unreadable as error:
        return Facts(reason=str(error))
    size, content = picture.size, hashlib.sha256(data).hexdigest()
    if min(size) < SMALLEST:
        return Facts(size, content, reason=f"{size[0]}x{size[1]} pixels are too few: each side needs {SMALLEST}.")
    grey = picture.convert("L")
    grey.thumbnail((MEASURED_AT, MEASURED_AT), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return Facts(size, content, int(str(imagehash.phash(grey)), 16), round(sharpness(np.asarray(grey, np.float32)), 5))


def sharpness(grey: np.ndarray) -> float:
    """How much of a picture's contrast lies between neighbours: variance of its Laplacian by its own variance.

    The variance of the Laplacian is the usual measure of blur [Pech-Pacheco et al. 2000]; divided by the contrast, a
    dim or pale picture is not taken for a blurred one. 1 for a picture of one colour, of which nothing can be said.

    Args:
        grey: [h, w], 0..255.
    """
    if min(grey.shape) < 3 or grey.var() < 1:
        return 1.0
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(max(laplacian.var() - ROUNDING, 0) / grey.var())


def twins(likeness: Sequence[int]) -> dict[int, int]:
    """Near-duplicates: number of a picture -> number of the first one before it that looks alike."""
    hashes = np.array(likeness, np.uint64)
    found: dict[int, int] = {}
    for number in range(1, len(hashes)):
        bits = np.bitwise_count(hashes[:number] ^ hashes[number])
        first = int(np.argmax(bits <= ALIKE))
        if bits[first] <= ALIKE:
            found[number] = first
    return found


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
