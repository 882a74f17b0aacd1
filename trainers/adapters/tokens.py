"""Pivotal tuning: the trigger word gets vectors of its own, learnt beside the adapter.

They are what textual inversion learns [Gal et al. 2022], trained together with a LoRA [cog-sdxl; diffusers' "pivotal
tuning"]. The base's matrix of vectors stays as it is: the new rows stand behind it, and a tokenizer that knows the word
points at them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from torch import Tensor, nn

from trainers.config import TrainConfig
from trainers.data.captions import mentions, whole_word
from trainers.errors import UserError
from trainers.families.base import Components, FamilySpec

TOKENS = "tokens"  # where they stand in checkpoints: tokens/text_0
PULL = 0.1  # how much of a vector's wrong length (its logarithm) a step takes away, as in diffusers' pivotal tuning


@dataclass
class NewTokens:
    """What stands for `word` in each text encoder that reads it: text_0 -> rows [n, D], fp32."""

    word: str
    embeddings: dict[str, "MoreRows"]

    def parameters(self) -> list[nn.Parameter]:
        return [embedding.rows for embedding in self.embeddings.values()]

    def named(self) -> dict[str, nn.Parameter]:
        """The live rows by their keys in checkpoints."""
        return {f"{TOKENS}/{part}": embedding.rows for part, embedding in self.embeddings.items()}

    def stretches(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """(rows, factors [n, 1] that draw their lengths towards the mean length of the base's), of rows in training."""
        for embedding in self.embeddings.values():
            if embedding.rows.requires_grad:
                lengths = embedding.rows.detach().norm(dim=-1, keepdim=True)
                yield embedding.rows, (embedding.usual / lengths) ** PULL


class MoreRows(nn.Embedding):
    """nn.Embedding with rows of our own behind those of the base: ids from `first` on."""

    rows: nn.Parameter  # [n, D]
    first: int
    usual: float  # mean length of the base's rows
    word: str

    def forward(self, ids: Tensor) -> Tensor:
        """[B, L] -> [B, L, D]; a row of the base is what it was, to the bit."""
        new = ids >= self.first
        base = super().forward(ids.masked_fill(new, 0))
        ours = F.embedding((ids - self.first).clamp(min=0), self.rows)
        return torch.where(new[..., None], ours.to(base.dtype), base)

    def extra_repr(self) -> str:
        """Names the word: kept captions belong to the encoder as this tells it (data/cache.py)."""
        return f"{super().extra_repr()}, {len(self.rows)} for {self.word!r}"


class TriggerTokenizer:
    """A tokenizer for captions in which the trigger word, in any case of letters, stands for the new tokens."""

    def __init__(self, tokenizer: Any, word: str, count: int):
        names = [f"<new_token_{i}>" for i in range(count)]
        tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
        self.tokenizer, self.names = tokenizer, f" {' '.join(names)} "
        self.first = tokenizer.convert_tokens_to_ids(names[0])
        self.pattern = whole_word(word)
        self.model_max_length = tokenizer.model_max_length

    def __call__(self, captions: list[str], **options: object) -> Any:
        return self.tokenizer([self.pattern.sub(self.names, caption) for caption in captions], **options)


def start_tokens(components: Components, spec: FamilySpec, config: TrainConfig) -> NewTokens | None:
    """New tokens as the settings wish them, at their start; None where they wish none.

    Raises:
        UserError: `token_start` holds nothing that the tokenizer knows.
    """
    settings, data = config.adapter, config.data
    if not settings.new_tokens:
        return None
    word = settings.token_start.strip() or next(iter(data.class_words), "").strip() or data.kind
    vectors = {}
    for index in range(len(spec.embedding_keys)):
        pieces = components.tokenizers[index](word, add_special_tokens=False).input_ids
        if not pieces:
            hint = f"Set it to a word that the base knows, such as {data.kind}."
            raise UserError(f"adapter.token_start is {word!r}, in which the tokenizer finds no word.", hint)
        ids = [pieces[i % len(pieces)] for i in range(settings.new_tokens)]
        vectors[f"text_{index}"] = components.text_encoders[index].get_input_embeddings().weight[ids]
    return attach_tokens(components, data.trigger.strip(), vectors)


def attach_tokens(components: Components, word: str, vectors: Mapping[str, Tensor]) -> NewTokens:
    """Let `word` stand for these vectors, text_0 -> [n, D], in captions and prompts from now on.

    Raises:
        UserError: they are of another width than the base's.
    """
    tokenizers, embeddings = list(components.tokenizers), {}
    for index, (part, rows) in enumerate(vectors.items()):
        encoder = components.text_encoders[index]
        embedding = encoder.get_input_embeddings()
        if rows.ndim != 2 or rows.shape[-1] != embedding.embedding_dim:
            base = f"{components.name} reads {embedding.embedding_dim}"
            message = f"The vectors of {word} have width {rows.shape[-1]}, and {base}."
            raise UserError(message, "Choose the base model that they were trained on.")
        tokenizers[index] = TriggerTokenizer(components.tokenizers[index], word, len(rows))
        embedding.__class__ = MoreRows
        embedding.rows = nn.Parameter(rows.detach().to(embedding.weight.device, torch.float32, copy=True))
        embedding.first, embedding.word = tokenizers[index].first, word
        embedding.usual = 1.0 if rows.is_meta else embedding.weight.float().norm(dim=-1).mean().item()
        embeddings[part] = embedding
        _end_where_it_ends(encoder, components.tokenizers[index])
    components.tokenizers = tuple(tokenizers)
    return NewTokens(word, embeddings)


def tokens_of_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The new tokens' vectors in what `Adapter.state` returned, text_0 -> [n, D]; empty where it has none."""
    return {key.removeprefix(f"{TOKENS}/"): rows for key, rows in state.items() if key.startswith(f"{TOKENS}/")}


def require_word(config: TrainConfig, captions: Iterable[str]) -> None:
    """UserError where new tokens are wished and no caption has the trigger word, so that they would learn nothing."""
    word = config.data.trigger.strip()
    if config.adapter.new_tokens and not any(mentions(caption, word) for caption in captions):
        message = f"No caption has the trigger word {word}, so adapter.new_tokens would learn nothing."
        raise UserError(message, "Write the word into the captions of the pictures that show what it stands for.")


def _end_where_it_ends(encoder: nn.Module, tokenizer: Any) -> None:
    """Old configs call the end token 2, and CLIP then takes the highest id for it: that would be a new token."""
    inner = getattr(encoder, "text_model", encoder)
    if inner.eos_token_id == 2:
        inner.eos_token_id = tokenizer.eos_token_id
