"""The samples of a run as HTML: a grid of prompt by step, and a strip of those that were asked for."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from app.gui.markup import enlarged, picture_address, text
from trainers.events import Sample

SIDE = 320  # pixels of a thumbnail: twice what the grid shows, for dense screens


def samples_grid(samples: Iterable[Sample], folder: Path) -> str:
    """Prompts as rows in the order in which they came, steps as columns: the base first, the newest last.

    A picture that a resumed run drew again counts once. Rows and columns are only ever added at the ends, so that the
    browser leaves those that stand as they are.
    """
    cells = {(sample.prompt, sample.step): sample for sample in samples}
    if not cells:
        return ""
    prompts = list(dict.fromkeys(prompt for prompt, _ in cells))
    steps = sorted({step for _, step in cells})
    heads = "".join(f'<th scope="col"{_base(step)}>{step_name(step)}</th>' for step in steps)
    rows = "".join(
        f'<tr><th scope="row"><span title="{text(prompt)}">{text(prompt)}</span></th>'
        + "".join(_cell(cells.get((prompt, step)), step, row, folder) for step in steps)
        + "</tr>"
        for row, prompt in enumerate(prompts)
    )
    return (
        '<div class="dr-samples" tabindex="0" role="region" aria-label="Samples by prompt and step"><table>'
        f'<thead><tr><th scope="col">Prompt</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def asked_strip(samples: Sequence[Sample], pending: Sequence[str], folder: Path) -> str:
    """Samples that a person asked for, the newest first, with those in the making before them."""
    if not samples and not pending:
        return ""
    waiting = "".join(
        f'<li class="pending"><div class="dr-drawing" role="status">drawing ...</div><span>{text(prompt)}</span></li>'
        for prompt in reversed(pending)
    )
    done = "".join(
        f"<li>{shot(sample, 'asked', f'Step {sample.step:,}, {how(sample)}', folder)}"
        f'<span>{text(sample.prompt)}</span><small class="dr-quiet">Step {sample.step:,}, {how(sample)}</small></li>'
        for sample in reversed(samples)
    )
    return f'<h3 class="dr-title">Asked for</h3><ul class="dr-strip">{waiting}{done}</ul>'


def shot(sample: Sample, group: str, label: str, folder: Path, base: bool = False) -> str:
    """A picture that a click enlarges, beside others of its group."""
    path, large = folder / sample.path, enlarged(folder / sample.path, group, label, sample.prompt, base)
    return (
        f'<button type="button" class="dr-shot" {large} aria-label="{text(label)}: {text(sample.prompt)}">'
        f'<img src="{text(picture_address(path, SIDE))}" alt="" loading="lazy" decoding="async"></button>'
    )


def step_name(step: int) -> str:
    return f"Step {step:,}" if step else "Base"


def how(sample: Sample) -> str:
    """ "seed 42, strength 0.8"."""
    seed = "" if sample.seed is None else f"seed {sample.seed}, "
    return f"{seed}strength {sample.strength:g}"


def _cell(sample: Sample | None, step: int, row: int, folder: Path) -> str:
    inner = '<span class="dr-none" aria-label="none"></span>'
    if sample:
        inner = shot(sample, str(row), step_name(step), folder, base=not step)
    return f"<td{_base(step)}>{inner}</td>"


def _base(step: int) -> str:
    return "" if step else ' class="base"'
