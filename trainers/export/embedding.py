"""The file of a trigger word's own vectors, beside the adapter, as image programs read a textual inversion.

One tensor per text encoder: emb_params [n, D] where there is one (A1111, ComfyUI, diffusers), clip_l [n, 768] and
clip_g [n, 1280] where there are two (A1111, ComfyUI, kohya's sd-scripts). A1111, Forge and diffusers know the word by
the file's name, and ComfyUI wants embedding: before it. OneTrainer can put the same tensors into the adapter.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from trainers.adapters.adapter_file import AdapterFile
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.export.hashes import adapter_hashes, hash_of_file
from trainers.export.modules import BUNDLE
from trainers.families.base import FamilySpec
from trainers.families.headers import read_header
from trainers.files import write_whole

NEEDS = "lora_darkroom.embedding"  # in an adapter's metadata: the name of the file that it needs beside it
TITLE = "modelspec.title"  # in the embedding's own: the word, also where the file is called otherwise
ALONE = "string_to_param.*"  # what OneTrainer and A1111 call the vectors of the only text encoder in an adapter
Vectors = Mapping[str, Tensor]  # text_0 -> [n, D]


def file_name(config: TrainConfig, stem: str) -> str:
    """The embedding file of an adapter file: zib.safetensors, or zib-step00000500.safetensors from before the end."""
    step = re.match(r"-step\d+", stem.removeprefix(config.saving.name))
    return f"{config.data.trigger.strip()}{step[0] if step else ''}.safetensors"


def usage(name: str) -> str:
    """What to do with the file called `name`."""
    return f"put it into the program's folder for embeddings. In ComfyUI write embedding:{Path(name).stem}."


def write_embedding(vectors: Vectors, entries: dict[str, str], spec: FamilySpec, path: Path, keep: bool) -> Path:
    """Write the vectors in fp32, whatever the adapter's precision, and read them back; returns `path`.

    Raises:
        UserError: the disk refuses or does not give back what was written; or, with `keep`, another file has the name.
    """
    tensors = _named(vectors, spec.embedding_keys)
    hashes = adapter_hashes(tensors, entries)
    if keep and path.exists() and not _holds(path, hashes):
        message = f"{path} is there already, and holds other vectors."
        raise UserError(message, "Move it away, or name another folder with --to.")

    def check(partial: Path) -> None:
        read = load_file(partial)
        same = read.keys() == tensors.keys() and all(torch.equal(read[key], tensors[key]) for key in tensors)
        if not same or hash_of_file(partial) != hashes["sshs_model_hash"]:
            raise UserError(f"{path.name} does not read back as it was written.", "Export it again, to another disk.")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_whole(path, save(tensors, {**entries, **hashes}), check)
    except OSError as error:
        message = f"{path.name} could not be written to {path.parent} ({error.strerror or error})."
        raise UserError(message, "Make room on that disk, or choose another folder.") from error


def bundled(vectors: Vectors, spec: FamilySpec, word: str) -> dict[str, Tensor]:
    """The same tensors under the names that they have inside an adapter file."""
    keys = spec.embedding_keys if len(spec.embedding_keys) > 1 else (ALONE,)
    return {f"{BUNDLE}{word}.{key}": rows for key, rows in _named(vectors, keys).items()}


def needed(metadata: Iterable[Mapping[str, str]]) -> list[str]:
    """Names of the embedding files that adapters with this metadata need beside them."""
    return list(dict.fromkeys(name for one in metadata if (name := Path(one.get(NEEDS, "")).name)))


def belonging(file: AdapterFile, spec: FamilySpec) -> tuple[str, dict[str, Tensor]] | None:
    """(word, vectors) that an adapter file needs, from the file beside it or from inside; None where it needs none.

    Raises:
        UserError: it is not there, damaged, or of another family.
    """
    name = Path(file.metadata.get(NEEDS, "")).name
    path = file.path.with_name(name) if name else file.path
    if name and path.is_file():
        return read_embedding(path, spec)
    found = bundles(file, spec)
    if name and not found:
        message = f"{file.path.name} needs {name}, which is not beside it: the trigger word's own vectors are in there."
        raise UserError(message, "Put both files into one folder.")
    return next(iter(found.items())) if len(found) == 1 else None


def read_embedding(path: Path, spec: FamilySpec) -> tuple[str, dict[str, Tensor]]:
    """(word, text_0 -> [n, D]) of an embedding file. UserError when it is damaged or of another family."""
    header, metadata = read_header(path)
    if header.keys() != set(spec.embedding_keys):
        message = f"{path.name} holds no textual inversion for {spec.label}."
        raise UserError(message, "Choose the base model that it was trained on.")
    tensors = load_file(path)
    return metadata.get(TITLE, path.stem), {f"text_{i}": tensors[key] for i, key in enumerate(spec.embedding_keys)}


def bundles(file: AdapterFile, spec: FamilySpec) -> dict[str, dict[str, Tensor]]:
    """Word -> its vectors, of all that an adapter file brings along."""
    keys = spec.embedding_keys if len(spec.embedding_keys) > 1 else (ALONE,)
    words = [k.removeprefix(BUNDLE).removesuffix(f".{keys[0]}") for k in file.tensors if k.endswith(f".{keys[0]}")]
    found = {}
    for word in words:
        names = [f"{BUNDLE}{word}.{key}" for key in keys]
        if word and all(name in file.tensors for name in names):
            found[word] = {f"text_{i}": file.tensors[name] for i, name in enumerate(names)}
    return found


def _named(vectors: Vectors, keys: tuple[str, ...]) -> dict[str, Tensor]:
    return {key: vectors[f"text_{i}"].detach().float().cpu().contiguous() for i, key in enumerate(keys)}


def _holds(path: Path, hashes: Mapping[str, str]) -> bool:
    try:
        return read_header(path)[1].get("sshs_model_hash") == hashes["sshs_model_hash"]
    except UserError:
        return False
