"""What a model file is, told from its tensor names and shapes. Loads no tensor and imports no torch."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families import folders, keys
from trainers.families.headers import check_pickle, look_at, read_header, read_shapes, refuse_lookalikes

__all__ = [
    "FAMILY_LABELS",
    "USUAL_PREDICTION",
    "Identity",
    "choose_family",
    "classify",
    "identify",
    "identify_base",
    "read_header",
    "refuse",
]

FAMILY_LABELS = {
    "sd15": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3",
    "flux": "Flux",
}
USUAL_PREDICTION = {"sd15": "epsilon", "sd2": "", "sdxl": "epsilon", "sd3": "flow"}  # of files that do not say
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
BRING_CLIPS = (
    "Name its text encoders, clip_l.safetensors and clip_g.safetensors, in model.clip_l and model.clip_g, or choose a "
    "file that brings them (incl_clips), or a diffusers folder."
)
CHOOSE_BASE = "Choose the base model it belongs to: a checkpoint file of 2 GB or more, or a diffusers folder."


@dataclass(frozen=True)
class Identity:
    """What a file or folder is. Empty strings stand for what it does not say."""

    kind: str  # base, inpainting base, LoRA adapter, VAE, UNet, ... (the names in keys.py); unknown; pickle
    family: str = ""  # a key of FAMILY_LABELS
    layout: str = ""  # ldm, diffusers (names inside one file), folder, pickle
    prediction: str = ""  # epsilon or v, where the file says so
    zero_terminal_snr: bool = False
    metadata: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def lacks_text(self) -> bool:
        """Whether it is a whole Stable Diffusion 3 file but for its text encoders, as Stability AI publishes them."""
        return (self.kind, self.family, self.layout) == ("transformer", "sd3", "ldm")

    @property
    def label(self) -> str:
        """For people: `Stable Diffusion XL base model`, `LoRA adapter for Stable Diffusion 1.x`."""
        family = FAMILY_LABELS.get(self.family, "")
        if self.kind.endswith("base"):
            return f"{family} {self.kind} model".strip()
        return f"{self.kind} for {family}" if family else self.kind


def identify(path: Path) -> Identity:
    """What `path` is. UserError when it is missing, damaged, cut off, or no model at all.

    A pickle (.ckpt) cannot be told from outside: its kind is "pickle", and the loader classifies what is in it.
    """
    path = Path(path)
    if path.is_dir():
        found = folders.describe(path)
        return Identity(found.kind, found.family, "folder", found.prediction, zero_terminal_snr=found.zero_terminal_snr)
    if path.suffix.lower() in PICKLES:
        check_pickle(path)
        return Identity("pickle", layout="pickle")
    if path.suffix.lower() != ".safetensors":
        refuse_lookalikes(path, look_at(path)[1])
    return classify(*read_shapes(path))


def classify(shapes: keys.Shapes, metadata: dict[str, str] | None = None) -> Identity:
    """Identify a file from its tensor shapes and metadata alone."""
    kind, family, layout = keys.kind_of(shapes)
    metadata = metadata or {}
    said = metadata.get("modelspec.prediction_type", "").lower()
    architecture = metadata.get("modelspec.architecture", "").lower()
    if not said and architecture.startswith("stable-diffusion-v2"):
        said = "v" if "768-v" in architecture else "epsilon" if "512" in architecture else ""
    # NoobAI and its kin mark v-prediction by an empty tensor of that name; ComfyUI reads the same marks.
    prediction = "v" if "v_pred" in shapes or said.startswith("v") else "epsilon" if said.startswith("eps") else ""
    if family == "sd3":
        prediction = ""  # sd-scripts writes epsilon into these files too; they predict a flow
    return Identity(kind, family, layout, prediction, "ztsnr" in shapes, metadata)


def identify_base(path: Path, config: ModelConfig) -> Identity:
    """`identify`, as a base where the settings name the text encoders that it lacks."""
    return with_text(identify(path), config)


def with_text(found: Identity, config: ModelConfig) -> Identity:
    """`found` as it is together with the text encoders that the settings name."""
    return replace(found, kind="base") if found.lacks_text and config.clip_l and config.clip_g else found


def choose_family(found: Identity, trained: Collection[str], name: str) -> str:
    """Which of the `trained` families a base model (`name` in errors) belongs to. UserError when none."""
    if found.kind == "pickle":  # what is in it shows when it is loaded
        return "sd15"
    wanted = found.family if found.family in trained else "sd15"
    try:
        refuse(found, name, wanted)
    except UserError as error:
        known = ", ".join(FAMILY_LABELS[family] for family in trained)
        hint = error.hint if found.family in trained or found.kind != "base" else f"Trained here: {known}."
        raise UserError(error.message, hint) from error
    return wanted


def refuse(found: Identity, name: str, wanted: str) -> None:
    """UserError unless `found` is a base model of family `wanted`, or a pickle, whose tensors show it when loaded."""
    if found.kind == "pickle":
        return
    label = FAMILY_LABELS[wanted]
    if found.kind == "unknown":
        raise UserError(
            f"{name} holds weights, but not those of an image model known here.", f"Choose a {label} base model."
        )
    if found.kind == "inpainting base":
        raise UserError(
            f"{name} is an inpainting model: its UNet takes a mask and cannot be trained on pictures alone.",
            "Choose the normal version of the same model; the adapter works on both.",
        )
    if found.kind == "base":
        if found.family == wanted:
            return
        raise UserError(
            f"{name} is a {FAMILY_LABELS.get(found.family, 'different kind of')} model, and {label} is wanted.",
            f"Choose a {label} base model.",
        )
    article = "an" if found.kind[0] in "AEIOaeio" else "a"
    hint = BRING_CLIPS if found.lacks_text and wanted == "sd3" else CHOOSE_BASE
    raise UserError(f"{name} is {article} {found.label}, not a base model.", hint)
