"""An adapter in another layout, spelling or number format, with the problems mended that `darkroom inspect` names."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from trainers.adapters.adapter import Place
from trainers.adapters.adapter_file import WEIGHTS, adapter_files, read_adapter
from trainers.adapters.weights import Weights
from trainers.errors import UserError
from trainers.export import told
from trainers.export.contents import read_contents
from trainers.export.embedding import NEEDS, TITLE, bundles, write_embedding
from trainers.export.hashes import hash_of_file
from trainers.export.modules import BUNDLE
from trainers.export.problems import Finding, Problem, findings
from trainers.export.weigh import weigh
from trainers.export.which_base import base_of
from trainers.tools import results
from trainers.tools.opened import Opened, open_adapter, placed

UNTRUE = (Problem.ALPHA_MISSING, Problem.ALPHA_OVERWRITTEN)  # alphas that may not be those it was trained with
FILED_WRONG = (Problem.FAMILY_DISAGREES, Problem.HIDDEN_IN_A1111)
ONLY_FIXED = (*FILED_WRONG, Problem.RANK_DISAGREES, Problem.METADATA_BROKEN, Problem.ALPHA_OVERWRITTEN)

IMPLIED = {  # what is so in a layout that was asked for
    "diffusers": (Problem.DIFFUSERS_NAMES,),
    "peft": (Problem.DIFFUSERS_NAMES, Problem.ALPHA_IN_HEADER),
}


@dataclass(frozen=True)
class Wish:
    """What to make of an adapter. Empty: as it is, but kohya's layout for what only diffusers reads."""

    form: str = ""
    dtype: str = ""
    fix: bool = False  # also what changes the meaning, or what is said of it: alphas and metadata
    alpha: float | None = None  # the true alpha, where the file's is doubtful


def convert(path: Path, out: Path | None, wish: Wish) -> dict[str, Any]:
    """Write the adapter as wished, beside its input without `out`, and tell what was mended and what was not.

    Raises:
        UserError: no adapter that is read, wrong options, a layout that has no such type, or it cannot be written.
    """
    results.require_output(wish.dtype, wish.form)
    adapter = open_adapter(path)
    form = wish.form or (adapter.form if adapter.base.family == "sd3" else "kohya")
    file = results.target(out or _beside(path, form, wish), [path])
    before = problems(path)
    _refuse_broken(adapter, before)
    modules, notes = _with_alphas(adapter, before, wish)
    entries, said = _mended(adapter, modules, before, wish.fix)
    words = _words(adapter, file)
    if len(words) == 1:
        entries[NEEDS] = next(iter(words)).name
    report = results.save(modules, entries, adapter.base, file, wish.dtype or adapter.dtype, form)
    embeddings = [write_embedding(vectors, {TITLE: w}, adapter.spec, f, keep=True) for f, (w, vectors) in words.items()]
    written = tuple(f"{BUNDLE}{word}." for word, _ in words.values())
    implied = IMPLIED.get(form, ())
    after = [finding for finding in problems(report.path) if finding.problem not in implied]
    left = {finding.problem for finding in after} | {*implied}
    return {
        **results.written(report),
        "mended": _sentences([finding for finding in before if finding.problem not in left]),
        "not mended": [_with_advice(finding, wish) for finding in after],
        "notes": notes + said,
        "embeddings": [str(file) for file in embeddings],
        "left out": [key for key in adapter.left_out if not key.startswith(written)],
    }


def _refuse_broken(adapter: Opened, before: list[Finding]) -> None:
    for finding in before:
        if finding.problem == Problem.NOT_A_NUMBER:
            raise UserError(f"{adapter.name} cannot be mended. {finding.says}", "Take an earlier save of its training.")


def problems(path: Path) -> list[Finding]:
    """What `inspect` finds in an adapter file, or in each file of peft's folder."""
    found, first = [], None
    for file in adapter_files(path).values():
        where = file.parent if file.name == WEIGHTS else file
        contents = read_contents(where)
        base = first if first and first.own_size else base_of(contents)  # a text encoder's file does not show it
        first = first or base
        found += findings(contents, base, weigh(where, contents), hash_of_file(file))
    return found


def _beside(path: Path, form: str, wish: Wish) -> Path:
    name = path.name.removesuffix(results.ENDING)
    ending = "fixed" if wish.fix and not wish.form else "-".join(part for part in (form, wish.dtype) if part)
    return path.with_name(f"{name}-{ending}{results.ENDING}")


def _with_alphas(adapter: Opened, before: list[Finding], wish: Wish) -> tuple[dict[Place, Weights], list[str]]:
    """The updates with the alphas that are the true ones by the user's word or, to be fixed, by the metadata."""
    doubtful = {name for finding in before if finding.problem in UNTRUE for name in finding.about}
    said = told.number(adapter.metadata, "ss_network_alpha")
    rank = told.number(adapter.metadata, "ss_network_dim")
    alpha, names = wish.alpha, doubtful or set(adapter.meant)
    if alpha is None and wish.fix and said and said != rank:
        alpha, names = said, {name for name in doubtful if name in adapter.named and adapter.named[name].rank == rank}
    if alpha is None:
        return adapter.modules, []
    if not 0 < alpha < math.inf:
        raise UserError(f"--alpha is {alpha:g}, and must be a number above 0.", "Give the alpha it was trained with.")
    names = {name for name in names if not getattr(adapter.named.get(name), "whole", False)}  # readers ignore it there
    named = {name: _rescaled(update, alpha) if name in names else update for name, update in adapter.named.items()}
    changed = [name for name in names if name in adapter.meant and named[name].scale != adapter.named[name].scale]
    return placed(adapter, named), _said_of_alpha(adapter, changed, alpha, wish)


def _rescaled(update: Weights, alpha: float) -> Weights:
    """Another alpha for the same matrices: another strength."""
    return replace(update, alpha=alpha)


def _said_of_alpha(adapter: Opened, changed: list[str], alpha: float, wish: Wish) -> list[str]:
    if not changed:
        return []
    first = adapter.named[changed[0]]
    source = "as you say" if wish.alpha is not None else "as its metadata says"
    layers = "1 layer has" if len(changed) == 1 else f"{len(changed):,} layers have"
    return [
        f"{layers} alpha {alpha:g} now, {source}, in place of {first.alpha:g}: "
        f"{alpha / first.alpha:.3g} times as strong as before."
    ]


def _mended(
    adapter: Opened, modules: dict[Place, Weights], before: list[Finding], fix: bool
) -> tuple[dict[str, str], list[str]]:
    """Metadata that tells the family and, to be fixed, no other; then also true ranks, and nothing unreadable."""
    old, found, notes = results.kept(adapter.metadata), {finding.problem for finding in before}, []
    if Problem.FAMILY_DISAGREES in found and not fix:
        return old, notes  # half of it mended would contradict the other half
    entries = results.filed(old, adapter.base, adapter.path.stem, anew=fix and bool(found & {*FILED_WRONG}))
    changed = sorted(key for key in entries if entries[key] != old.get(key))
    if changed:
        notes.append(f"The metadata says {adapter.spec.label} now ({', '.join(changed)}).")
    if adapter.form == "diffusers" and "ss_network_alpha" in entries:  # earlier versions left the alpha before it
        entries = results.sized(modules, entries)
    if not fix:
        return entries, notes
    if found & {Problem.RANK_DISAGREES, Problem.ALPHA_MISSING}:
        entries = results.sized(modules, entries)
    broken = sorted({sentence.split(" ")[0] for sentence in told.broken(entries)})
    if broken:
        entries = {key: value for key, value in entries.items() if key not in broken}
        notes.append(f"Unreadable metadata was left out: {', '.join(broken)}.")
    return entries, notes


def _words(adapter: Opened, path: Path) -> dict[Path, tuple[str, dict[str, Tensor]]]:
    """The textual inversions that the adapter brings along, each by the file of its word's name beside the result.

    Where another file has that name, the result's own goes in front.
    """
    if not any(key.startswith(BUNDLE) for key in adapter.unread):
        return {}
    found: dict[Path, tuple[str, dict[str, Tensor]]] = {}
    for word, vectors in bundles(read_adapter(adapter.path), adapter.spec).items():
        plain = re.sub(r"[^\w-]+", "_", word)  # it comes out of the file: no path may be in it
        file = path.with_name(f"{plain}{results.ENDING}")
        if file.exists() or file == path or file in found:
            file = path.with_name(f"{path.stem}-{plain}{results.ENDING}")
        found[results.target(file, [adapter.path, path])] = (word, vectors)
    return found


def _sentences(found: list[Finding]) -> list[dict[str, str]]:
    return [{"name": str(finding.problem), "says": finding.says} for finding in found]


def _with_advice(finding: Finding, wish: Wish) -> dict[str, str]:
    """A problem that is still there, and what to do about it."""
    says = finding.says
    if finding.problem in ONLY_FIXED and not wish.fix:
        says += " --fix mends it."
    elif finding.problem in ADVICE:
        says += f" {ADVICE[finding.problem]}"
    return {"name": str(finding.problem), "says": says}


ADVICE = {
    Problem.ZEROS: "There is nothing to mend in the file: those layers were not trained.",
    Problem.MATRICES_DISAGREE: "It cannot be mended: the file is damaged.",
    Problem.OTHER_SHAPES: "It cannot be mended: it was trained on another base.",
    Problem.DIFFUSERS_NAMES: "--to kohya mends it.",
    Problem.ALPHA_OVERWRITTEN: "--alpha A sets it.",
}
