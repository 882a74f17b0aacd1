"""The adapter tools on the command line: merge, resize, extract, convert."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app import cli_output as output
from app import engine
from app.paths import absolute
from trainers.errors import UserError
from trainers.families.locate import EMBEDDED, embedded_base

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Out = Annotated[Path, typer.Option(help="The new file (or folder); nothing is ever written over.")]
Dtype = Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; as the input by default.")]
Rank = Annotated[int | None, typer.Option(help="The highest rank of a layer.")]
Keep = Annotated[float | None, typer.Option(help="Share of each layer's energy to keep, such as 0.95.")]
To = Annotated[str | None, typer.Option("--to", help="Layout: kohya, diffusers or peft.")]


def register(app: typer.Typer) -> None:
    for command in (merge, resize, extract, convert):
        app.command()(command)


def merge(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Adapters; or a base and what to merge into it.")
    ],
    out: Out,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="W...", help="One weight per adapter, in their order; 1 by default.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Of a second base over the first: 0 is the first, 1 the second.")
    ] = None,
    how: Annotated[str, typer.Option(help="concat: exact, ranks add up. svd: within --rank or --keep.")] = "concat",
    rank: Rank = None,
    keep: Keep = None,
    dtype: Dtype = None,
    to: To = None,
    as_json: Json = False,
) -> None:
    """Adapters into one adapter, adapters into a base model, or two base models into one between them."""
    paths, numbers = _apart(files, weights or [])
    values = engine.merge(paths, numbers, strength, absolute(out), how, rank, keep, dtype, to)
    show(values, as_json)


def resize(
    adapter: Annotated[Path, typer.Argument(help="An adapter file.")],
    out: Annotated[Path | None, typer.Option(help="The new file; NAME-resized beside it by default.")] = None,
    rank: Rank = None,
    keep: Keep = None,
    dtype: Dtype = None,
    to: To = None,
    as_json: Json = False,
) -> None:
    """The adapter at a lower rank: each layer's best approximation."""
    path = absolute(adapter)
    beside = path.with_name(path.name.removesuffix(".safetensors") + "-resized.safetensors")
    show(engine.resize(path, absolute(out) if out else beside, rank, keep, dtype, to), as_json)


def extract(
    tuned: Annotated[str, typer.Argument(help="A fine-tuned model: checkpoint file or diffusers folder.")],
    base: Annotated[str, typer.Argument(help="The model that it was tuned from.")],
    out: Out,
    rank: Rank = None,
    keep: Keep = None,
    conv_rank: Annotated[int | None, typer.Option(help="Rank of 3x3 convolutions; without it, none are taken.")] = None,
    dtype: Annotated[str, typer.Option(help="fp16, bf16 or fp32.")] = "fp16",
    to: To = None,
    as_json: Json = False,
) -> None:
    """A LoRA out of the difference of two base models."""
    values = engine.extract(_model(tuned), _model(base), absolute(out), rank, keep, conv_rank, dtype, to, output.note)
    show(values, as_json)


def convert(
    adapter: Annotated[Path, typer.Argument(help="An adapter file, or a folder that peft wrote.")],
    to: To = None,
    out: Annotated[Path | None, typer.Option(help="The new file; a name beside the old one by default.")] = None,
    dtype: Dtype = None,
    fix: Annotated[bool, typer.Option("--fix", help="Also mend alphas and metadata that are wrong.")] = False,
    alpha: Annotated[float | None, typer.Option(help="The alpha it was trained with, where the file's is not.")] = None,
    as_json: Json = False,
) -> None:
    """The adapter in another layout or number format, with what `darkroom inspect` finds wrong mended."""
    values = engine.convert(absolute(adapter), absolute(out) if out else None, to, dtype, fix, alpha)
    show(values, as_json)


def show(values: dict[str, Any], as_json: bool) -> None:
    """As text, problems are their sentences, and counts stand on one line."""
    output.show(values if as_json else {name: _line(name, value) for name, value in values.items()}, as_json)


def _line(name: str, value: Any) -> Any:
    if name in ("mended", "not mended"):
        return [problem["says"] for problem in value]
    if name == "merged":
        return ", ".join(f"{Path(one['file']).name} {one['weight']:g}" for one in value)
    if name.startswith("rank"):
        return _counts(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_number(inner)}" for key, inner in value.items())
    if name == "left out" and len(value) > FEW:
        return [*value[:FEW], f"and {len(value) - FEW:,} more"]
    return value


FEW = 5  # keys shown of a longer list


def _counts(value: dict[int, int]) -> str:
    if len(value) == 1:
        return str(next(iter(value)))
    if len(value) <= 4:
        return ", ".join(f"{rank} ({count:,} layers)" for rank, count in value.items())
    return f"{min(value)} to {max(value)}, {sum(r * n for r, n in value.items()) / sum(value.values()):.1f} on average"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _apart(files: list[str], weights: list[str]) -> tuple[list[Path], list[float]]:
    """(paths, weights) of `A B --weights 1 0.5`, where the parser takes all numbers but the first for files."""
    numbers = [part for text in weights for part in text.replace(",", " ").split()]
    if weights:
        numbers += [text for text in files if _is_number(text)]
        files = [text for text in files if not _is_number(text)]
    wrong = next((text for text in numbers if not _is_number(text)), None)
    if wrong is not None:
        raise UserError(f"{wrong} is no weight.", "Write numbers, as in `--weights 1 0.5`.")
    return [_model(text) for text in files], [float(text) for text in numbers]


def _is_number(text: str) -> bool:
    try:
        float(text)
        return True
    except ValueError:
        return False


def _model(text: str) -> Path:
    return embedded_base() if text == EMBEDDED else absolute(text)
