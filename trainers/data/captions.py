"""Captions: reading them beside the picture, making one where there is none, reordering their tags.

A caption is used as it was written. Where it lacks the trigger word, nothing is added: the scan says so, and the person
decides. Only a picture without a caption gets the trigger word and kind.
"""

import codecs
import errno
import random
import re
from pathlib import Path

# But for scripts without spaces between words, or with endings: Thai to Myanmar, Khmer, Japanese, Chinese, Korean.
LETTER = r"[^\W\u0e00-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af\uff66-\uff9f\U00020000-\U0003ffff]"
LONGEST = 1 << 20  # bytes of a caption; models read some hundred
ENDINGS = (".txt", ".caption", ".TXT", ".CAPTION")  # the first that exists wins; capitals matter on Linux
BYTE_ORDER_MARKS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_caption(picture: Path) -> str | None:
    """The text of the caption file beside `picture`, on one line; "" for an empty file, None for no file.

    UTF-8 (with or without a byte order mark), UTF-16 and UTF-32 with one, else Windows-1252. OSError where the file
    cannot be read.
    """
    file = caption_file(picture)
    return None if file is None else decode(read_bytes(file))


def is_guessed(picture: Path) -> bool:
    """Whether nothing tells the encoding of the caption file beside `picture`, and Windows-1252 is taken for it."""
    file = caption_file(picture)
    return file is not None and _told_encoding(read_bytes(file)) is None


def read_bytes(file: Path) -> bytes:
    """What a caption file holds. OSError where it cannot be read, or is no caption by its size."""
    if file.stat().st_size > LONGEST:
        raise OSError(errno.EINVAL, "it is too large to be a caption", str(file))
    return file.read_bytes()


def caption_file(picture: Path) -> Path | None:
    """The caption file beside `picture`, the same name with another ending; None where there is none."""
    for ending in ENDINGS:
        file = picture.with_suffix(ending)
        if file.is_file():
            return file
    return None


def decode(data: bytes) -> str:
    """Bytes of a text file in any of the encodings editors write -> its text on one line."""
    text = data.decode(_told_encoding(data) or "cp1252", errors="replace")
    return " ".join(text.replace("\0", " ").split())


def _told_encoding(data: bytes) -> str | None:
    """By its mark; UTF-8 where all of it is that; None where nothing tells."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return "utf-8"


def fallback_caption(trigger: str, kind: str) -> str:
    """The caption of a picture that has none: trigger word and kind, "sks person"; without a trigger, the kind."""
    trigger = " ".join(trigger.split())
    if not trigger:
        return kind
    return trigger if kind in trigger.casefold().split() else f"{trigger} {kind}"


def whole_word(words: str) -> re.Pattern[str]:
    """These words by themselves, with any space between them and in any case of letters; not inside other words.

    Beside letters of a script that has no spaces between words they are found wherever they stand.
    """
    alone = r"\s+".join(map(re.escape, words.split()))
    return re.compile(rf"(?<!{LETTER}){alone}(?!{LETTER})", re.IGNORECASE)


def mentions(caption: str, trigger: str) -> bool:
    """Whether the trigger word stands in the caption, in any case of letters."""
    return bool(trigger.strip()) and bool(whole_word(trigger).search(caption))


def without_trigger(caption: str, trigger: str, class_word: str) -> str:
    """The caption with `class_word` in the trigger's place; the class word alone where the trigger is not in it."""
    if not mentions(caption, trigger):
        return class_word
    replaced = whole_word(trigger).sub(lambda _: class_word, caption)
    return " ".join(replaced.split()).strip(" ,")


def tags(caption: str) -> list[str]:
    """The comma-separated parts of a caption, without empty ones."""
    return [tag for tag in (part.strip() for part in caption.split(",")) if tag]


def shuffle_tags(caption: str, keep: int, rng: random.Random) -> str:
    """Reorder the comma-separated tags of a caption; the first `keep` stay in place."""
    parts = tags(caption)
    kept, rest = parts[:keep], parts[keep:]
    rng.shuffle(rest)
    return ", ".join([*kept, *rest])
