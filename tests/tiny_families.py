"""Tiny random models of the families beyond Stable Diffusion 1.x, as diffusers folders and as original checkpoints.

The folders are written by diffusers and transformers; the checkpoints' layout follows the original code.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tests.tiny import tiny_tokenizer, tiny_vae
from trainers.families import ldm

FAMILIES = ("sd2", "sdxl", "sd3")
SIDE = 8  # of the latents; pictures are twice that


def tiny_folder(family: str, path: Path, prediction: str = "", true_width: bool = False) -> Path:
    """A diffusers folder of that family with random weights; `path` is returned.

    Of SD 2 most is a text encoder (40 MB), as wide as the family is told by. Of SDXL with its `true_width` as well (70
    MB): by that the file of an adapter is told.
    """
    torch.manual_seed(0)
    made = _sdxl(prediction, true_width) if family == "sdxl" else {"sd2": _sd2, "sd3": _sd3}[family](prediction)
    made.save_pretrained(path)
    return path


def write_checkpoint(family: str, folder: Path, file: Path, **more: Tensor) -> Path:
    """The same model as one file in the original layout."""
    tensors = original_tensors(family, read_pipeline(family, folder)) | more
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, file)
    return file


def read_pipeline(family: str, folder: Path) -> DiffusionPipeline:
    """diffusers' own pipeline from the folder, in fp32."""
    kind = {"sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline, "sd3": StableDiffusion3Pipeline}[family]
    absent = ("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor") if family == "sd3" else ()
    return kind.from_pretrained(folder, dtype=torch.float32, **dict.fromkeys(absent))


def original_tensors(family: str, pipe: object) -> dict[str, Tensor]:
    """A pipeline's tensors under the names of an original checkpoint."""
    tensors = {ldm.vae_names(pipe.vae.config)(name)[0]: t for name, t in pipe.vae.state_dict().items()}
    if family == "sd3":
        tensors |= mmdit_tensors(pipe.transformer)
        for part, encoder in (("clip_l", pipe.text_encoder), ("clip_g", pipe.text_encoder_2)):
            tensors |= {f"text_encoders.{part}.transformer.{n}": t for n, t in encoder.state_dict().items()}
        return tensors
    tensors |= {ldm.unet_names(pipe.unet.config)(name)[0]: t for name, t in pipe.unet.state_dict().items()}
    if family == "sd2":
        return tensors | openclip_tensors(pipe.text_encoder, "cond_stage_model.model.", extra_layer=True)
    names = ldm.text_names("conditioner.embedders.0.transformer.")
    tensors |= {names(name)[0]: t for name, t in pipe.text_encoder.state_dict().items()}
    return tensors | openclip_tensors(pipe.text_encoder_2, "conditioner.embedders.1.model.")


def openclip_tensors(encoder: nn.Module, prefix: str, extra_layer: bool = False) -> dict[str, Tensor]:
    """A CLIP encoder's tensors as OpenCLIP keeps them; `extra_layer` adds the last layer that SD 2 does not read."""
    own = {name.removeprefix("text_model."): t for name, t in encoder.state_dict().items()}
    result = {
        "token_embedding.weight": own["embeddings.token_embedding.weight"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "ln_final.weight": own["final_layer_norm.weight"],
        "ln_final.bias": own["final_layer_norm.bias"],
        "logit_scale": torch.tensor(1.0),
    }
    if "text_projection.weight" in own:
        result["text_projection"] = own["text_projection.weight"].T
    layers = encoder.config.num_hidden_layers
    for i in range(layers + extra_layer):
        layer = f"encoder.layers.{min(i, layers - 1)}."
        block = f"transformer.resblocks.{23 if i == layers else i}."
        for leaf in ("weight", "bias"):
            fused = [own[f"{layer}self_attn.{p}_proj.{leaf}"] for p in "qkv"]
            result[f"{block}attn.in_proj_{leaf}"] = torch.cat(fused)
            result[f"{block}attn.out_proj.{leaf}"] = own[f"{layer}self_attn.out_proj.{leaf}"]
            for theirs, ours in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")):
                result[f"{block}{theirs}.{leaf}"] = own[f"{layer}{ours}.{leaf}"]
            for theirs, ours in (("c_fc", "fc1"), ("c_proj", "fc2")):
                result[f"{block}mlp.{theirs}.{leaf}"] = own[f"{layer}mlp.{ours}.{leaf}"]
    return {prefix + name: tensor for name, tensor in result.items()}


def mmdit_tensors(transformer: nn.Module) -> dict[str, Tensor]:
    """A transformer's tensors as the original code keeps them: q, k, v in one, the last modulations turned."""
    own, result = transformer.state_dict(), {}
    top = {
        "pos_embed.proj": "x_embedder.proj",
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
        "context_embedder": "context_embedder",
        "proj_out": "final_layer.linear",
    }
    result["pos_embed"] = own["pos_embed.pos_embed"]
    last = transformer.config.num_layers - 1
    for leaf in ("weight", "bias"):
        result |= {f"{theirs}.{leaf}": own[f"{ours}.{leaf}"] for ours, theirs in top.items()}
        result[f"final_layer.adaLN_modulation.1.{leaf}"] = _turned(own[f"norm_out.linear.{leaf}"])
        for i in range(last + 1):
            ours, theirs = f"transformer_blocks.{i}.", f"joint_blocks.{i}."
            for stream, names, out, norm, feed in (
                ("x_block", ("to_q", "to_k", "to_v"), "to_out.0", "norm1", "ff"),
                (
                    "context_block",
                    ("add_q_proj", "add_k_proj", "add_v_proj"),
                    "to_add_out",
                    "norm1_context",
                    "ff_context",
                ),
            ):
                qkv = [own[f"{ours}attn.{name}.{leaf}"] for name in names]
                result[f"{theirs}{stream}.attn.qkv.{leaf}"] = torch.cat(qkv)
                turn = _turned if stream == "context_block" and i == last else lambda t: t
                result[f"{theirs}{stream}.adaLN_modulation.1.{leaf}"] = turn(own[f"{ours}{norm}.linear.{leaf}"])
                if f"{ours}attn.{out}.{leaf}" in own:
                    result[f"{theirs}{stream}.attn.proj.{leaf}"] = own[f"{ours}attn.{out}.{leaf}"]
                    result[f"{theirs}{stream}.mlp.fc1.{leaf}"] = own[f"{ours}{feed}.net.0.proj.{leaf}"]
                    result[f"{theirs}{stream}.mlp.fc2.{leaf}"] = own[f"{ours}{feed}.net.2.{leaf}"]
            if f"{ours}attn2.to_q.{leaf}" in own:
                qkv = [own[f"{ours}attn2.{name}.{leaf}"] for name in ("to_q", "to_k", "to_v")]
                result[f"{theirs}x_block.attn2.qkv.{leaf}"] = torch.cat(qkv)
                result[f"{theirs}x_block.attn2.proj.{leaf}"] = own[f"{ours}attn2.to_out.0.{leaf}"]
    norms = {"norm_q": "x_block.attn.ln_q", "norm_k": "x_block.attn.ln_k"}
    norms |= {"norm_added_q": "context_block.attn.ln_q", "norm_added_k": "context_block.attn.ln_k"}
    for i in range(last + 1):
        for ours, theirs in norms.items():
            if f"transformer_blocks.{i}.attn.{ours}.weight" in own:
                result[f"joint_blocks.{i}.{theirs}.weight"] = own[f"transformer_blocks.{i}.attn.{ours}.weight"]
        for part in "qk":
            if f"transformer_blocks.{i}.attn2.norm_{part}.weight" in own:
                tensor = own[f"transformer_blocks.{i}.attn2.norm_{part}.weight"]
                result[f"joint_blocks.{i}.x_block.attn2.ln_{part}.weight"] = tensor
    return {f"model.diffusion_model.{name}": tensor for name, tensor in result.items()}


def _turned(tensor: Tensor) -> Tensor:
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])


def _tokenizer(pad: str) -> CLIPTokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = pad
    return tokenizer


def _text(
    kind: type, tokenizer: CLIPTokenizer, width: int, act: str, projection: int = 16, layers: int = 3
) -> nn.Module:
    count = len(tokenizer)
    return kind(
        CLIPTextConfig(
            vocab_size=count,
            hidden_size=width,
            intermediate_size=min(2 * width, 64),
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=24,
            projection_dim=projection,
            hidden_act=act,
            bos_token_id=count - 2,
            eos_token_id=count - 1,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet(width: int, **more: object) -> UNet2DConditionModel:
    usual = {"layers_per_block": 1, "block_out_channels": (16, 32)}
    return UNet2DConditionModel(
        sample_size=SIDE,
        cross_attention_dim=width,
        norm_num_groups=8,
        use_linear_projection=True,
        **(usual | more),
    )


def _sd2(prediction: str) -> StableDiffusionPipeline:
    tokenizer = _tokenizer("!")
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return StableDiffusionPipeline(
        vae=tiny_vae(SIDE),
        text_encoder=_text(CLIPTextModel, tokenizer, 1024, "gelu", layers=2),  # the family is told by this width
        tokenizer=tokenizer,
        unet=_unet(1024, attention_head_dim=(2, 4), **blocks),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction or "v_prediction",
            clip_sample=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(prediction: str, true_width: bool) -> StableDiffusionXLPipeline:
    width, layers = (2048, 1) if true_width else (64, 3)
    tokenizers = _tokenizer("<|endoftext|>"), _tokenizer("!")
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 64, 64),
        "transformer_layers_per_block": (1, 1, 2),
        "layers_per_block": 2,
    }
    return StableDiffusionXLPipeline(
        vae=tiny_vae(SIDE),
        text_encoder=_text(CLIPTextModel, tokenizers[0], 16, "quick_gelu"),
        text_encoder_2=_text(CLIPTextModelWithProjection, tokenizers[1], width - 16, "gelu", 32, layers),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=_unet(
            width,
            attention_head_dim=(1, 2, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
            **blocks,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction or "epsilon",
            clip_sample=False,
        ),
    )


def _sd3(prediction: str) -> StableDiffusion3Pipeline:
    tokenizers = _tokenizer("<|endoftext|>"), _tokenizer("!")
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=2 * SIDE,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    transformer = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=16,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=16,
        pos_embed_max_size=12,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=_text(CLIPTextModelWithProjection, tokenizers[0], 16, "quick_gelu", 16),
        text_encoder_2=_text(CLIPTextModelWithProjection, tokenizers[1], 16, "gelu", 16),
        text_encoder_3=None,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=None,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def tiny_t5(path: Path, width: int) -> Path:
    """A T5 encoder with a tokenizer that knows letters and a few words."""
    torch.manual_seed(0)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"\u2581{w}", -2.0) for w in ("a", "cat", "photo"))]
    pieces += [(letter, -4.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz"]
    inner = Tokenizer(models.Unigram(pieces, unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    tokenizer.save_pretrained(path)
    config = T5Config(
        vocab_size=len(pieces),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(path)
    return path
