"""The base's CLIP tokenizer: byte-level BPE in lower case, learnt from every emoji name."""

import json
from pathlib import Path

from pictures import STYLES, emoji_table
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
EXTRA = ["a fluent style", "a photo of a person", "an illustration of a character on a white background"]


def build_tokenizer(packages: Path, folder: Path, length: int) -> CLIPTokenizer:
    """Learn the tokenizer (or read it back from `folder`); merges follow CLIP's conventions, `</w>` ends a word."""
    if not (folder / "tokenizer_config.json").exists():
        names = [entry["name"] for entry in emoji_table(packages)]
        texts = [f"a {style} style {name}" for style in STYLES for name in names] + EXTRA * 2
        bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
        bpe.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        split = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
        words = pre_tokenizers.Split(Regex(split), behavior="removed", invert=True)
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        bpe.decoder = decoders.ByteLevel()
        letters = [c + end for c in pre_tokenizers.ByteLevel.alphabet() for end in ("", "</w>")]
        trainer = trainers.BpeTrainer(
            vocab_size=3215, min_frequency=2, special_tokens=sorted(letters), end_of_word_suffix="</w>"
        )
        bpe.train_from_iterator(texts, trainer)
        vocab = bpe.get_vocab()
        merges = _merges(bpe)
        ordered = {token: i for i, (token, _) in enumerate(sorted(vocab.items(), key=lambda item: item[1]))}
        ordered |= {START: len(ordered), END: len(ordered) + 1}
        CLIPTokenizer(vocab=ordered, merges=merges, model_max_length=length, pad_token=END).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]
