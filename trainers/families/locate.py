"""Where a base model lies: inside the product, at a path, or on the Hugging Face hub."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from trainers.config import ModelConfig
from trainers.errors import UserError, disk_error
from trainers.families.detect import FAMILY_LABELS, USUAL_PREDICTION, choose_family, identify_base, refuse
from trainers.families.folders import SHARD, WEIGHT_PARTS, choose_weights, describe

EMBEDDED = "embedded"
EMBEDDED_NAME = "lora-darkroom-base"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def locate(base: str) -> Path:
    """The local path of a base model; a hub id is downloaded once. UserError when it cannot be found."""
    return find_here(base) or download(base)


@dataclass(frozen=True)
class Glance:
    """What a look at a base without loading it shows; all empty for a hub id, which waits for later.

    A pickle does not show its family.
    """

    family: str = ""
    text: str = ""  # "x.safetensors: Stable Diffusion XL, predicts epsilon"


def require_base(config: ModelConfig) -> Glance:
    """UserError where a glance shows that the base is missing, cut off or of another kind. Needs no torch."""
    path = find_here(config.base)
    for file in filter(None, (config.clip_l, config.clip_g)):
        find_here(file, TAKES_CLIP, "text encoder")
    if path is None:
        return Glance()
    name = name_of(config.base, path)
    families = [f for f in get_args(ModelConfig.model_fields["family"].annotation) if f != "auto"]
    found = identify_base(path, config)
    family = choose_family(found, families, name) if config.family == "auto" else config.family
    refuse(found, name, family)
    if found.kind == "pickle" and config.family == "auto":
        return Glance("", f"{name}: a pickled checkpoint, which shows what it is when it is loaded")
    prediction = found.prediction or config.prediction.replace("auto", "") or USUAL_PREDICTION[family]
    zero = " with zero terminal SNR" if found.zero_terminal_snr else ""
    told = f"predicts {prediction}{zero}" if prediction else "does not say what it predicts: set model.prediction"
    return Glance(family, f"{name}: {FAMILY_LABELS[family]}, {told}")


TAKES_CLIP = "model.clip_l and model.clip_g take .safetensors files."
TAKES = "model.base takes `embedded`, a diffusers folder, a .safetensors file, or a hub id such as owner/name."


def find_here(base: str, takes: str = TAKES, what: str = "base model") -> Path | None:
    """The path of a model on this machine; None for a hub id. UserError, with what the setting takes, for neither."""
    if base == EMBEDDED:
        return embedded_base()
    path = expand(base)
    if base and os.path.lexists(path):
        return path.absolute()
    if HUB_ID.fullmatch(base) and not base.endswith(FILE_ENDINGS) and not os.path.exists(path.parent):
        return None
    raise UserError(
        f"There is no {what} at {base or 'an empty path'}.",
        takes,
    )


def name_of(base: str, path: Path) -> str:
    """What people and metadata call the base that was located at `path`: a hub's folders are named after commits."""
    if base == EMBEDDED:
        return EMBEDDED_NAME
    return path.name if find_here(base) else base.partition("/")[2]


def expand(path: str) -> Path:
    """`~` and `~user` are home folders; that of nobody stays as it is, where pathlib raises a RuntimeError."""
    return Path(os.path.expanduser(path))


def embedded_base() -> Path:
    """The folder of the base model that comes with the product; UserError when it is missing or has lost parts."""
    folder = Path(__file__).resolve().parents[2] / "assets" / "base"
    try:
        describe(folder)
    except UserError as error:
        raise UserError(
            f"The embedded base model is damaged. {error.message}",
            "Get LoRA Darkroom again (with git: `git checkout -- assets/base`), or set model.base to your own model.",
        ) from error
    return folder


def download(repository: str) -> Path:
    """The local folder of a hub model, fetched if need be: settings, tokenizer, and one weight file per part."""
    return snapshot(repository, _wanted, describe)


def snapshot(repository: str, wanted: Callable[[list[str]], list[str]], check: Callable[[Path], object]) -> Path:
    """The local folder of the files of a hub model that `wanted` picks from all their names, fetched if need be.

    `check` raises UserError on a folder that is not whole.
    """
    return _with_sentences(repository, lambda: _fetch(repository, wanted, check))


def _with_sentences(repository: str, fetch: Callable[[], Path]) -> Path:
    from huggingface_hub import constants, errors  # noqa: PLC0415 - only for hub ids

    try:
        return fetch()
    except errors.GatedRepoError as error:
        raise UserError(
            f"{repository} asks for its licence to be accepted first.",
            f"Accept it at https://huggingface.co/{repository}, then run `hf auth login`.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"There is no model {repository} on the hub, and no such folder here.", "Check the name."
        ) from error
    except PermissionError as error:
        raise UserError(
            f"The folder for downloads may not be read or written: {error.filename or constants.HF_HUB_CACHE}.",
            "Give your account the right to, or set HF_HOME to a folder of your own.",
        ) from error
    except Exception as error:
        if disk := disk_error(error):
            hint = f"Make room in {constants.HF_HUB_CACHE} and try again: the download goes on where it stopped."
            raise UserError(disk.message, hint) from error
        if not _is_network(error):
            raise
        raise UserError(
            f"{repository} is no file or folder here, and the Hugging Face hub cannot be reached.",
            "Connect to the network and try again, or set model.base to a model on this machine.",
        ) from error


def _fetch(repository: str, wanted: Callable[[list[str]], list[str]], check: Callable[[Path], object]) -> Path:
    import huggingface_hub as hub  # noqa: PLC0415 - only for hub ids
    from huggingface_hub import errors  # noqa: PLC0415 - only for hub ids

    try:
        folder = Path(hub.snapshot_download(repository, local_files_only=True))
        check(folder)
        return folder  # the same bytes in every run
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError, UserError):
        pass  # not there yet, or not whole
    names = [file.rfilename for file in hub.model_info(repository, timeout=20).siblings or []]
    return Path(hub.snapshot_download(repository, allow_patterns=wanted(names)))


def _is_network(error: Exception) -> bool:
    """Offline, refused, timed out. The hub's client has changed its HTTP library twice: the name decides."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("http", "requests", "urllib3"))


def _wanted(names: list[str]) -> list[str]:
    """The files of a diffusers repository that are needed: no second copies of weights, no safety checker, no T5."""
    if "model_index.json" not in names:
        raise UserError(
            "This hub model is not a diffusers model: it has no model_index.json.",
            "Download its .safetensors file and set model.base to that.",
        )
    parts = WEIGHT_PARTS["sd3" if any(n.startswith("transformer/") for n in names) else "sdxl"]
    around = ("tokenizer/", "tokenizer_2/", "scheduler/")
    kept = ["model_index.json", *(n for n in names if n.startswith(around))]
    for part in parts:
        kept += part_files(names, f"{part}/")  # what must be there is asked for once it is downloaded
    return kept


def part_files(names: list[str], folder: str) -> list[str]:
    """The settings and one copy of the weights among the files of a part, whose names begin with `folder`."""
    inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    if not inside:
        return []
    chosen = choose_weights(inside, smaller=True)
    shards = [name for name in inside if _is_shard(name, chosen)] if chosen.endswith(".json") else []
    return [f"{folder}{name}" for name in ("config.json", chosen, *shards) if name]


def _is_shard(name: str, index: str) -> bool:
    """Whether a file is one of those that an index lists, by its name.

    `model.fp16-00001-of-00002.safetensors`, or `model-00001-of-00002.fp16.safetensors` from older programs, belongs to
    `model.safetensors.index.fp16.json`.
    """
    whole, count = SHARD.subn("", name)
    return count == 1 and sorted([*whole.split("."), "index", "json"]) == sorted(index.split("."))
