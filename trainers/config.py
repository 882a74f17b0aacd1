"""Every setting of a run: frozen sections, one Field per setting.

Form controls, command-line keys, TOML, bounds and help all come from these Fields. Rates are per optimizer step;
shares lie in 0..1; sizes are pixels.
"""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Lines = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Rank = Annotated[int, Field(ge=0, le=1024)]
Rate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def setting(default: object, title: str, description: str, *, unit: str = "", **bounds: object) -> object:
    """A Field with the texts every user-facing surface shows."""
    return Field(default, title=title, description=description, json_schema_extra={"unit": unit}, **bounds)


MODEL_FILES = ("vae", "clip_l", "clip_g", "t5")  # what, beside the base, names a model in ModelConfig


class ModelConfig(Section):
    base: str = setting(
        "embedded", "Base model", "`embedded`, a diffusers folder, a .safetensors or .ckpt file, or a hub id."
    )
    family: Literal["auto", "sd15", "sd2", "sdxl", "sd3"] = setting(
        "auto", "Family", "Read from the file unless named here."
    )
    prediction: Literal["auto", "epsilon", "v", "flow"] = setting(
        "auto", "Prediction type", "What the denoiser predicts; read from the model where it says so."
    )
    vae: str = setting("", "VAE", "A VAE file or folder to use in place of the base's own.")
    clip_l: str = setting(
        "", "CLIP-L text encoder", "For a file of SD 3 that brings no text encoders: clip_l.safetensors. Else empty."
    )
    clip_g: str = setting(
        "", "CLIP-G text encoder", "For a file of SD 3 that brings no text encoders: clip_g.safetensors. Else empty."
    )
    t5: str = setting(
        "", "T5 text encoder", "For SD 3: a folder with T5 and its tokenizer, or a hub id. Empty leaves T5 out."
    )
    clip_skip: int = setting(
        1,
        "Clip skip",
        "Which text-encoder layer is read, counted from the last; 2 for many anime bases of Stable Diffusion 1.5, "
        "and 1 for all of SDXL and SD 3.",
        ge=1,
        le=12,
    )


class AdapterConfig(Section):
    type: str = setting(
        "lora",
        "Adapter type",
        "How the weight change is parametrised: lora; locon also changes the convolutions; dora learns the size of "
        "each row apart; loha and lokr say more with as few numbers, and fewer programs read them.",
    )
    rank: int = setting(16, "Rank", "Inner width of the adapter; 8 to 32 is enough for most.", ge=1, le=1024)
    alpha: float | None = setting(
        None, "Alpha", "The update is scaled by alpha / rank; empty means alpha = rank.", gt=0
    )
    conv_rank: int | None = setting(
        None, "Convolution rank", "Of convolutions that look at neighbours (3x3). Empty means the rank.", ge=1, le=1024
    )
    conv_alpha: float | None = setting(
        None, "Convolution alpha", "Empty means alpha = the convolution rank where that is set, else alpha.", gt=0
    )
    targets: str = setting(
        "transformer",
        "Layers",
        "A preset (attention, transformer, full; for SDXL also style and content, as in B-LoRA) or a regular "
        "expression on module paths. locon adds the convolution blocks to a preset.",
    )
    block_ranks: dict[str, Rank] = setting(
        {},
        "Ranks by block",
        'Module path -> rank, such as { "up_blocks.1" = 8 }; 0 leaves the layers alone. A path is a regular expression '
        "for whole names between dots; the last that fits counts, and alpha / rank stays.",
    )
    rank_stabilised: bool = setting(
        False, "Rank-stabilised", "Scale by alpha / sqrt(rank), so that high ranks learn as fast as low ones (rsLoRA)."
    )
    factor: int = setting(
        -1,
        "LoKr factor",
        "Size of the smaller of LoKr's two matrices; -1 makes them as alike as can be.",
        ge=-1,
        le=512,
    )
    decompose_both: bool = setting(
        False, "LoKr: split both", "Give also the smaller matrix of LoKr the rank, where that saves numbers."
    )
    dropout: Share = setting(0.0, "Dropout", "Share of adapter inputs zeroed while training.", lt=1)
    rank_dropout: float = setting(
        0.0,
        "Rank dropout",
        "Share of the adapter's inner channels left out while training: of ranks, per picture (lora, locon, dora), or "
        "of output rows, per step (loha, lokr).",
        ge=0,
        le=0.5,  # what is kept is scaled up by its share: peft divides by zero where it keeps nothing
    )
    module_dropout: Share = setting(
        0.0, "Module dropout", "Share of layers whose update is left out of a training step.", lt=1
    )
    text_encoder: bool = setting(
        False, "Train text encoder", "Also adapt the text encoder. Off by default: it overcooks easily."
    )
    text_rank: int | None = setting(
        None, "Text encoder rank", "Empty means the same rank as the denoiser's.", ge=1, le=1024
    )
    text_alpha: float | None = setting(None, "Text encoder alpha", "Empty means alpha = its rank.", gt=0)
    text_ranks: tuple[Rank, ...] = setting(
        (), "Ranks by text encoder", "One for each in turn, on bases with several; 0 leaves one alone."
    )
    text_stop: Share = setting(
        1.0, "Text encoder stop", "Share of the run after which the text encoder stays as it is."
    )
    new_tokens: int = setting(
        0,
        "New tokens",
        "So many vectors that the text encoder is given for the trigger word are learnt beside the adapter (pivotal "
        "tuning); 0 is off. They go into a file named after the word, which the adapter needs beside it.",
        ge=0,
        le=16,
    )
    token_start: str = setting(
        "",
        "New tokens start as",
        "The word whose vectors they begin with. Empty means the first class word, or else the kind: person, style.",
    )
    token_stop: Share = setting(
        0.5,
        "New tokens stop",
        "Share of the run after which they stay as they are. The text encoder then runs no more, unless it is trained.",
    )
    init_from: str = setting(
        "", "Start from", "An adapter file of the same type and rank that the training goes on from."
    )

    @property
    def trains_text(self) -> bool:
        """Whether captions must be encoded anew in every step."""
        return self.text_encoder or self.new_tokens > 0

    @property
    def shape(self) -> tuple[int, float]:
        """(rank, alpha) of the denoiser's layers."""
        return self.rank, self.alpha or float(self.rank)

    @property
    def conv_shape(self) -> tuple[int, float]:
        """(rank, alpha) of the denoiser's convolutions larger than 1x1."""
        rank, alpha = self.shape if self.conv_rank is None else (self.conv_rank, float(self.conv_rank))
        return rank, self.conv_alpha or alpha

    def text_shape(self, index: int) -> tuple[int, float]:
        """(rank, alpha) of a text encoder's layers; rank 0 is not trained."""
        rank = self.text_rank or self.rank
        rank = self.text_ranks[index] if index < len(self.text_ranks) else rank
        return rank, self.text_alpha or float(rank)


class DataConfig(Section):
    folders: Lines = setting((), "Picture folders", "Read, never written; subfolders included.")
    folder_names: Lines = setting(
        (),
        "Folder names",
        "What each picture folder is called in kohya's layout, in their order: `10_sks dog` shows its pictures 10 "
        "times per epoch, and captions those without caption `sks dog`. Empty texts leave the folder its own name.",
    )
    leave_out: Lines = setting(
        (),
        "Left out",
        "Pictures that are not trained on: each a file's place inside its picture folder, such as `beach/07.png`, or "
        "its whole path.",
    )
    trigger: str = setting(
        "",
        "Trigger word",
        "Stands for the concept; with the kind it is the caption of pictures that have none, nor words in their "
        "folder's name.",
    )
    kind: Literal["person", "style", "object", "character"] = setting(
        "object", "Kind", "What the pictures teach; completes the caption of uncaptioned pictures."
    )
    resolution: int | None = setting(
        None,
        "Resolution",
        "Side of the square whose area every bucket has; empty means the base's own.",
        unit="px",
        ge=16,
        le=4096,
    )
    repeats: int = setting(1, "Repeats", "How often each picture is seen per epoch.", ge=1, le=10000)
    batch_size: int = setting(1, "Batch size", "Pictures learnt from together; more take more memory.", ge=1, le=256)
    bucketing: bool = setting(True, "Aspect buckets", "Keep pictures near their shape; off crops all to a square.")
    bucket_step: int | None = setting(
        None,
        "Bucket step",
        "Bucket sides are multiples of this; empty means 64, or the smallest the base allows if it is smaller.",
        unit="px",
        ge=4,
        le=512,
    )
    bucket_min: int | None = setting(None, "Smallest bucket side", "Empty means half the resolution.", unit="px", ge=8)
    bucket_max: int | None = setting(None, "Largest bucket side", "Empty means twice the resolution.", unit="px", ge=8)
    no_upscale: bool = setting(
        False, "Never upscale", "Small pictures get buckets of their own size (kohya's bucket_no_upscale)."
    )
    flip: bool = setting(
        False, "Mirror", "Show pictures mirrored half of the time; not for asymmetric subjects or text."
    )
    shuffle_tags: bool = setting(False, "Shuffle tags", "Reorder comma-separated tags each time; not for sentences.")
    keep_tokens: int = setting(1, "Keep tags", "The first so many tags stay in place when shuffling.", ge=0, le=100)
    class_words: Lines = setting(
        (),
        "Class words",
        "What the base knows of this kind (`woman`, `oil painting`): when the base's output is preserved, they take "
        "the trigger word's place in captions (empty leaves it empty), or are the prompts of the class pictures.",
    )
    class_pictures: int = setting(
        0,
        "Class pictures",
        "So many pictures of the class words are drawn by the base before training (prior preservation); output "
        "preservation then looks at them, and not at yours.",
        ge=0,
        le=10_000,
    )
    caption_dropout: Share = setting(0.0, "Caption dropout", "Share of views trained with an empty caption.")
    validation_share: Share = setting(
        0.1,
        "Held-out share",
        "Pictures kept out to measure the validation loss: at least 2, and none below 8 pictures.",
        lt=1,
    )


class NoiseConfig(Section):
    offset: float = setting(
        0.0,
        "Noise offset",
        "Adds a constant per channel to the noise: darker darks, brighter lights. 0.03 to 0.05.",
        ge=0,
        le=1,
    )
    timestep_min: int = setting(0, "First timestep", "Smallest noise level trained.", ge=0, le=999)
    timestep_max: int = setting(999, "Last timestep", "Largest noise level trained.", ge=0, le=999)
    density: Literal["logit_normal", "uniform"] = setting(
        "logit_normal", "Noise density", "How often a flow model (SD 3) sees each noise level: the middle more, or all."
    )
    logit_mean: float = setting(
        0.0, "Density centre", "Of the logit-normal density; above 0 favours noise.", ge=-4, le=4
    )
    logit_std: float = setting(1.0, "Density width", "Of the logit-normal density.", gt=0, le=4)
    shift: float | None = setting(
        None,
        "Timestep shift",
        "Moves a flow model's noise levels up; empty means the base's own (3 for SD 3).",
        gt=0,
        le=20,
    )


class LossConfig(Section):
    type: str = setting("l2", "Loss", "How the error is measured.")
    huber_c: float = setting(0.1, "Huber delta", "Where Huber turns from squared to linear.", gt=0, le=10)
    weighting: str = setting(
        "min_snr",
        "Weighting",
        "How much each noise level counts. Flow models (SD 3) count all alike, whatever it says.",
    )
    snr_gamma: float = setting(
        5.0, "Min-SNR gamma", "Upper bound of the signal-to-noise weight; 5 in the paper.", gt=0, le=100
    )
    preservation: float = setting(
        0.0,
        "Output preservation",
        "Weight of a second loss that keeps what is drawn without the trigger word as the base draws it; 0 is off.",
        ge=0,
        le=100,
    )
    preservation_every: int = setting(
        4,
        "Preserve every",
        "Batches from one such loss to the next; its weight grows with it, so that the balance stays.",
        unit="batches",
        ge=1,
        le=1000,
    )


class OptimizerConfig(Section):
    type: str = setting(
        "adamw", "Optimizer", "How gradients become updates. Prodigy finds its own rate: set the rate to 1."
    )
    rate: float = setting(1e-4, "Learning rate", "Step size of the denoiser's adapter.", gt=0, le=10)
    text_rate: float | None = setting(
        None, "Text encoder rate", "Empty means a tenth of the learning rate.", gt=0, le=10
    )
    text_rates: tuple[Rate, ...] = setting(
        (), "Rates by text encoder", "One for each in turn, on bases with several; the others have the rate above."
    )
    token_rate: float | None = setting(
        None,
        "New tokens' rate",
        "Learning rate of the new tokens. Empty means three times the learning rate.",  # 3e-4 in cog-sdxl
        gt=0,
        le=10,
    )
    block_rates: dict[str, Rate] = setting(
        {},
        "Rates by block",
        'Module path -> factor of the learning rate, such as { "up_blocks.1" = 0.5 }. A path is a regular expression '
        "for whole names between dots; the last that fits counts.",
    )
    lora_plus: float = setting(
        1.0,
        "LoRA+ ratio",
        "Learning rate of each layer's second matrix, as a multiple of the first one's; 16 in the paper, 1 is off. "
        "For lora, locon and dora.",
        ge=1,
        le=256,
    )
    weight_decay: float = setting(0.01, "Weight decay", "Pulls adapter weights towards zero.", ge=0, le=10)
    clip_norm: float = setting(1.0, "Gradient clip", "Largest gradient norm; 0 turns clipping off.", ge=0)
    accumulation: int = setting(1, "Accumulation", "Micro-batches per optimizer step.", ge=1, le=1024)
    ema: bool = setting(
        False, "EMA", "Keep a moving average of the adapter and save that; a schedule-free optimizer has its own."
    )
    ema_decay: Share = setting(0.99, "EMA decay", "Weight of the past in the average.", lt=1)

    @property
    def text_encoder_rate(self) -> float:
        """Of every text encoder that has none of its own."""
        return self.rate / 10 if self.text_rate is None else self.text_rate

    @property
    def new_tokens_rate(self) -> float:
        return 3 * self.rate if self.token_rate is None else self.token_rate

    @property
    def averages(self) -> bool:
        """Whether a moving average is kept; of schedule-free weights it would be one of those that are never saved."""
        return self.ema and self.type != "schedulefree"

    def rate_of_text(self, index: int) -> float:
        return self.text_rates[index] if index < len(self.text_rates) else self.text_encoder_rate


class ScheduleConfig(Section):
    steps: int = setting(0, "Steps", "Optimizer steps; 0 computes them from the picture views.", ge=0, le=10_000_000)
    views: int = setting(
        1500,
        "Picture views",
        "How many pictures the run shows in all where its batches are full, repeats and epochs counted. Not used where "
        "steps are set.",
        ge=1,
        le=100_000_000,
    )
    type: str = setting("cosine", "Schedule", "How the learning rate moves over the run.")
    warmup: Share = setting(0.05, "Warm-up", "Share of the run over which the rate rises from zero.")
    cycles: int = setting(1, "Cycles", "Restarts of the cosine.", ge=1, le=1000)
    power: float = setting(1.0, "Power", "Exponent of the polynomial schedule.", gt=0, le=10)


class PreviewConfig(Section):
    every: int = setting(250, "Preview every", "Steps between sample pictures; 0 for none.", unit="steps", ge=0)
    prompts: Lines = setting((), "Preview prompts", "Empty means prompts made from the trigger word and kind.")
    negative: str = setting("", "Negative prompt", "What the previews should avoid.")
    seed: int = setting(42, "Preview seed", "Fixed, so that previews differ only by training.", ge=0, le=2**63 - 1)
    guidance: float = setting(7.0, "Guidance scale", "How strongly previews follow the prompt.", ge=1, le=30)
    sampling_steps: int = setting(20, "Sampling steps", "Denoising steps of a preview.", ge=1, le=200)
    width: int | None = setting(
        None, "Preview width", "Empty means the training resolution.", unit="px", ge=16, le=4096
    )
    height: int | None = setting(
        None, "Preview height", "Empty means the training resolution.", unit="px", ge=16, le=4096
    )


class SavingConfig(Section):
    name: str = setting("adapter", "Name", "File name of the adapter, without ending.", min_length=1, max_length=120)
    dtype: Literal["fp16", "bf16", "fp32"] = setting("fp16", "File precision", "Number format of the saved adapter.")
    every: int = setting(
        500, "Checkpoint every", "Steps between checkpoints; 0 saves at the end and at a stop only.", unit="steps", ge=0
    )
    minutes: float = setting(
        10,
        "Checkpoint every minutes",
        "One more checkpoint when this time has passed since the last: the next one takes its place. 0: none.",
        unit="minutes",
        ge=0,
    )
    keep: int = setting(3, "Checkpoints kept", "Older ones are removed from the run folder.", ge=1, le=1000)
    bundle: bool = setting(
        False,
        "New tokens in the adapter",
        "Keep the new tokens also inside the adapter file. A1111 alone reads them there; ComfyUI and Forge complain, "
        "and InvokeAI and diffusers refuse such a file.",
    )
    privacy: Literal["full", "no_captions", "minimal"] = setting(
        "full",
        "Metadata",
        "What the file tells: all; nothing of captions, folders and prompts; only what loading needs.",
    )
    cover: bool = setting(True, "Cover in the file", "Keep the newest preview inside the file, where programs show it.")
    comment: str = setting("", "Comment", "Free text stored in the adapter's metadata.")


def _was_a_switch(value: object) -> object:
    """Checkpointing was on or off in earlier versions, and is in other trainers."""
    return {"true": "all", "false": "none"}.get(str(value).lower(), value)


def _automatic(value: object) -> object:
    return None if value == "auto" else value


Checkpointing = Annotated[Literal["none", "auto", "all"], BeforeValidator(_was_a_switch)]
Budget = Annotated[float | None, BeforeValidator(_automatic)]


class MemoryConfig(Section):
    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = setting("auto", "Device", "Where training runs.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "Precision", "Number format of the computation; adapter weights stay fp32."
    )
    attention: Literal["sdpa", "flash", "efficient", "cudnn", "xformers", "math"] = setting(
        "sdpa",
        "Attention",
        "Memory-efficient attention kernel. sdpa: the fastest of torch's that works here; flash, efficient, cudnn: "
        "that one of them, where it works (on a CPU only flash); math: plain mathematics, slow, much memory, safe.",
    )
    checkpointing: Checkpointing = setting(
        "auto",
        "Gradient checkpointing",
        "Compute activations again in the backward pass: less memory, more time. auto: as few as the memory budget "
        "asks for, the cheapest first.",
    )
    budget: Budget = setting(
        None,
        "Memory budget",
        "What training may take of the device's memory. Empty means what is free when it begins.",
        unit="GB",
        gt=0,
        le=10_000,
        allow_inf_nan=False,
    )
    parts: int = setting(
        1,
        "Parts of a batch",
        "Compute the pictures of a batch in so many parts, one after the other: less memory, more time where the "
        "device would do more at once, and the same training, but for what an adapter's dropout leaves out.",
        ge=1,
        le=256,
    )
    offload: bool = setting(
        False,
        "Activations in host memory",
        "What is kept of checkpointed parts waits in the computer's memory and not in the card's. With automatic "
        "checkpointing it is done where the budget asks for it.",
    )
    quantize: Literal["none", "int8", "nf4"] = setting(
        "none",
        "Quantised base",
        "Keep the frozen linear layers of the denoiser in 8 or 4 bits a number: the least memory, and more time. What "
        "is trained learns on rounded weights. For cards that nothing else fits.",
    )
    stream: Literal["none", "auto", "all"] = setting(
        "auto",
        "Weight streaming",
        "The frozen weights of the denoiser's blocks wait in the computer's memory and come to the card block by block "
        "(block swap); training on the CPU reads them from the base's file again. Less memory, more time. auto: of as "
        "few blocks as the memory budget asks for, where nothing else is enough. All blocks are then checkpointed.",
    )
    compile: Literal["none", "auto", "all"] = setting(
        "none",
        "Compiled blocks",
        "Compile the denoiser's blocks at the start, which takes minutes. auto: on a GPU, kept only where a few trial "
        "steps are faster. all: wherever it works. Not with adapter dropout, a quantised base or streamed weights.",
    )
    graphs: Literal["none", "auto"] = setting(
        "auto",
        "CUDA graphs",
        "Record a step once and let the card play it back: the same numbers, and less waiting for the processor. auto: "
        "on NVIDIA cards, kept only where a few trial steps are faster. Not with adapter dropout, streamed weights or "
        "activations in host memory, and on one device.",
    )
    exact: Literal["none", "auto", "all"] = setting(
        "auto",
        "The same to the bit",
        "Let a graphics card add up in the same order every time, so that a run which was stopped and resumed ends in "
        "the very same weights. auto: in 16 bits on NVIDIA cards since the RTX 30 series, where that takes 16% of a "
        "step (H100, Stable Diffusion 1.5, 512 pixels); elsewhere attention would take several times as long.",
    )
    retry: bool = setting(
        True,
        "Try again by itself",
        "Go on from the last good state by itself, and say so. Where 16-bit numbers overflow: in fp32 with plain "
        "attention. Where the memory runs out: with each batch in parts, then with checkpointing, offload and weight "
        "streaming.",
    )
    cache_latents: bool = setting(True, "Cache latents", "Encode each picture once and keep the result on disk.")


class TrainConfig(Section):
    """One run, whole. `seed` fixes initial weights, order, noise and dropout."""

    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    noise: NoiseConfig = NoiseConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    preview: PreviewConfig = PreviewConfig()
    saving: SavingConfig = SavingConfig()
    memory: MemoryConfig = MemoryConfig()
    seed: int = setting(1, "Seed", "One seed for initial weights, order and noise.", ge=0, le=2**32 - 1)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run: as set, or as many as its picture views fill."""
        return self.schedule.steps or math.ceil(self.schedule.views / self.views_per_step)

    @property
    def views_per_step(self) -> int:
        """Pictures that one optimizer step learns from."""
        return self.data.batch_size * self.optimizer.accumulation

    @property
    def at_once(self) -> int:
        """Pictures whose activations are held at the same time, at the most."""
        return math.ceil(self.data.batch_size / self.memory.parts)

    @property
    def several_passes(self) -> bool:
        """Whether gradients of one step's passes are added up."""
        return self.optimizer.accumulation > 1 or self.at_once < self.data.batch_size
