"""Captions to token ids and CLIP embeddings, shared by the families that read text with CLIP."""

from typing import Any

from torch import Tensor, nn


def tokenize(tokenizer: Any, captions: list[str], length: int) -> Tensor:
    """Token ids [B, L] int64 with start and end token, cut or padded to `length`."""
    return tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids


def token_counts(tokenizer: Any, captions: list[str]) -> list[int]:
    """How many tokens each caption has uncut, start and end token counted."""
    return [len(ids) for ids in tokenizer(captions, verbose=False).input_ids]  # verbose: the library warns of each


def caption_length(tokenizer: Any, text_encoder: nn.Module) -> int:
    """How many tokens a caption may have: 77 for CLIP. A tokenizer without settings claims 10**30: ask both."""
    return min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)


def encode(text_encoder: nn.Module, tokens: Tensor, clip_skip: int) -> Tensor:
    """Token ids [B, L] -> embeddings [B, L, D]; differentiable.

    clip_skip counts layers from the last, which is 1, as kohya and A1111 count (diffusers' clip_skip is one less). The
    layer's output passes through the final norm in any case.
    """
    if clip_skip == 1:
        return text_encoder(tokens).last_hidden_state
    hidden = text_encoder(tokens, output_hidden_states=True).hidden_states[-clip_skip]
    inner = getattr(text_encoder, "text_model", text_encoder)  # transformers 4 has one level more than 5
    return inner.final_layer_norm(hidden)
