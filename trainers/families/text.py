"""Captions to token ids and CLIP embeddings, shared by the families that read text with CLIP."""

from typing import Any

from torch import Tensor, nn

from trainers.families.base import Components


def tokenize(components: Components, captions: list[str]) -> tuple[Tensor, ...]:
    """Token ids [B, L] int64 per tokenizer, with start and end token, cut or padded to what its encoder reads."""
    return tuple(
        tokenizer(
            captions,
            padding="max_length",
            truncation=True,
            max_length=_length(tokenizer, encoder),
            return_tensors="pt",
        ).input_ids
        for tokenizer, encoder in zip(components.tokenizers, components.text_encoders, strict=True)
    )


def token_counts(components: Components, captions: list[str]) -> tuple[list[int], int]:
    """How many CLIP tokens each caption has uncut, start and end token counted; and how many are read."""
    tokenizer, encoder = components.tokenizers[0], components.text_encoders[0]
    ids = tokenizer(captions, verbose=False).input_ids  # verbose: the library warns of each
    return [len(row) for row in ids], _length(tokenizer, encoder)


def _length(tokenizer: Any, text_encoder: nn.Module) -> int:
    """How many tokens a caption may have: 77 for CLIP. A tokenizer without settings claims 10**30: ask both."""
    return min(tokenizer.model_max_length, getattr(text_encoder.config, "max_position_embeddings", 10**6))


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


def encode_penultimate(text_encoder: nn.Module, tokens: Tensor, clip_skip: int) -> tuple[Tensor, Tensor | None]:
    """Token ids [B, L] -> embeddings [B, L, D] and, from an encoder with a projection, that of the whole text [B, P].

    SDXL and Stable Diffusion 3 read the last layer but one, without the final norm; each clip_skip above 1 goes one
    layer further back.
    """
    output = text_encoder(tokens, output_hidden_states=True)
    return output.hidden_states[-(clip_skip + 1)], output.get("text_embeds")
