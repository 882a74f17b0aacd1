"""Trigger words and caption lengths, told by the tokenizers that the bases use."""

import functools
import re
import unicodedata
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from app.paths import BASE, ROOT

CLIP = ROOT / "trainers" / "families" / "configs" / "clip_tokenizer"
EMBEDDED = BASE / "tokenizer" / "tokenizer.json"
CLIP_READS = 75  # tokens of a caption: 77 with the first and the last
EMBEDDED_READS = 30  # assets/base/tokenizer/tokenizer_config.json: 32 with the first and the last
RARE = 45_000  # CLIP numbers its tokens from the most common on, to 49,405: saxophone 32,296, ohwx 47,993, sks 48,136
LONGEST = 3  # tokens of a good trigger word; more of them are hard to move together
ENDINGS = ("ix", "oz", "ul", "zo", "ek", "axa", "umi", "orv", "yx", "ibo")  # of suggestions: rare at a word's end
FALLBACK = "zor"  # where a name has no Latin letters
# CLIP's own way of cutting a text into words [OpenAI CLIP, simple_tokenizer.py]
WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def count(text: str, embedded: bool = False) -> int:
    """How many tokens a text has, without the first and the last."""
    return len(_tokens(" ".join(text.split()), embedded))


def is_too_long(caption: str, embedded: bool = False) -> bool:
    """Whether the text encoder does not read the caption to its end."""
    limit = EMBEDDED_READS if embedded else CLIP_READS
    return len(caption.encode()) > limit and count(caption, embedded) > limit  # no token is shorter than a byte


def complaint(trigger: str, embedded: bool = False) -> str:
    """What speaks against a trigger word for CLIP, or for the built-in base, as a sentence; "" where nothing does."""
    word = " ".join(trigger.split())
    if not word:
        return ""
    if re.search(r"[,()\[\]{}<>:|\\\n]", word):
        return "Image programs read commas, brackets and colons as signs of their own: use letters and digits."
    tokens = _tokens(word, embedded)
    if is_common(word, embedded):
        return f'"{word}" is a common word: the base already draws something for it. A rare word learns better.'
    if all(is_common(part, embedded) for part in word.split()):
        return "These are common words: the base already draws something for them. A rare word learns better."
    if len(tokens) > 2 * LONGEST:
        return f'"{word}" is long: the text encoder reads it as {len(tokens)} pieces. A shorter word learns better.'
    return ""


def is_common(word: str, embedded: bool = False) -> bool:
    """Whether there is a token for the whole word, and no late one: it was seen often."""
    tokens = _tokens(word, embedded)
    whole = len(tokens) == 1 and tokens[0].endswith("</w>")
    return whole and (embedded or (_clip().token_to_id(tokens[0]) or 0) < RARE)


def suggest(name: str, unlike: str = "") -> str:
    """A short rare word that sounds like the name: 2 or 3 tokens of CLIP; another one than `unlike`."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    words = re.findall(r"[a-z]{2,}", "".join(c for c in letters if not unicodedata.combining(c)))
    longest = max(words, key=len, default=FALLBACK)
    begin = re.match(r"[^aeiouy]{0,2}[aeiouy]*[^aeiouy]?", longest)[0][:4] or longest[:3]
    found = [begin + ending for ending in ENDINGS if begin[-1:] != ending[0]]
    good = [word for word in found if 2 <= count(word) <= LONGEST]
    if unlike in good:
        return good[(good.index(unlike) + 1) % len(good)]
    return good[0] if good else FALLBACK + ENDINGS[0]


@functools.lru_cache(8192)
def _tokens(text: str, embedded: bool) -> tuple[str, ...]:
    tokenizer = _embedded() if embedded else _clip()
    return tuple(tokenizer.encode(text, add_special_tokens=False).tokens)


@functools.lru_cache(1)
def _clip() -> Tokenizer:
    return _read_clip(CLIP)


@functools.lru_cache(1)
def _embedded() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(EMBEDDED))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_clip(folder: Path) -> Tokenizer:
    """CLIP's tokenizer from the vocab.json and merges.txt of a model."""
    model = models.BPE.from_file(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token="<|endoftext|>",
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
