"""What is wrong with an adapter file, each by a name that a program can act on, and in one sentence for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from trainers.adapters.reading import HEADER_CONFIG
from trainers.adapters.unheard import unheard
from trainers.export import told
from trainers.export.contents import Contents
from trainers.export.known_names import DIFFUSERS, KOHYA, PEFT, SGM, TE, TE1, Known
from trainers.export.layers.families import SD3_SIZES
from trainers.export.modules import BUNDLE, Module, clean
from trainers.export.remarks import hidden_in_a1111, unscaled
from trainers.export.weigh import Weights
from trainers.export.which_base import SIZE_LABELS, Base, said_base
from trainers.families.detect import FAMILY_LABELS
from trainers.families.registry import FAMILIES

NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # sha256 of no bytes at all


class Problem(StrEnum):
    """What can be wrong; `convert` mends most of them."""

    NOT_A_NUMBER = "not-a-number"
    ZEROS = "zeros"
    MATRICES_DISAGREE = "matrices-disagree"
    FAMILY_DISAGREES = "family-disagrees"
    OTHER_SHAPES = "other-shapes"
    UNKNOWN_KEYS = "unknown-keys"
    LEFTOVERS = "leftovers-in-names"
    MIXED_BLOCK_NAMES = "mixed-block-names"
    DIFFUSERS_NAMES = "diffusers-names"
    TEXT_PREFIX = "text-prefix"
    MAGNITUDE_NAME = "magnitude-name"
    ALPHA_BESIDE_DOTTED = "alpha-beside-dotted-names"
    ALPHA_MISSING = "alpha-missing"
    ALPHA_IN_HEADER = "alpha-in-header"
    ALPHA_OVERWRITTEN = "alpha-overwritten"
    RANK_DISAGREES = "rank-disagrees"
    SHAPE_OF_PROJECTION = "shape-of-projection"
    EMBEDDING_INSIDE = "embedding-inside"
    HIDDEN_IN_A1111 = "hidden-in-a1111"
    HASH_WRONG = "hash-wrong"
    HASH_OF_NOTHING = "hash-of-nothing"
    METADATA_BROKEN = "metadata-broken"


@dataclass(frozen=True)
class Finding:
    """A problem, its sentence, and the keys or modules it is about (none: the metadata)."""

    problem: Problem
    says: str
    about: tuple[str, ...] = ()


def findings(contents: Contents, base: Base, weights: Weights | None = None, digest: str = "") -> list[Finding]:
    """Everything that is wrong, the gravest first. `digest` is the true hash of the tensors, where it was computed."""
    found = _of_numbers(weights, base) if weights else []
    found += [*_of_names(contents, base), *_of_scale(contents), *_of_metadata(contents, base)]
    if digest:
        found += _of_hash(contents.metadata, digest)
    return found


def _of_numbers(weights: Weights, base: Base) -> list[Finding]:
    found = []
    if weights.broken:
        says = f"{_tensors(weights.broken)} NaN or infinity: pictures made with it come out black."
        found.append(Finding(Problem.NOT_A_NUMBER, says, weights.broken))
    if weights.zeros and len(weights.zeros) == len(weights.norms):
        found.append(Finding(Problem.ZEROS, "All modules are zero: it changes nothing.", weights.zeros))
    elif zeros := _untrained(weights, base):
        found.append(Finding(Problem.ZEROS, f"{_modules(zeros)} zero, without effect.", zeros))
    if weights.unfit:
        says = f"{_modules(weights.unfit)} damaged: matrices are missing, or do not fit one another."
        found.append(Finding(Problem.MATRICES_DISAGREE, says, weights.unfit))
    return found


def _untrained(weights: Weights, base: Base) -> tuple[str, ...]:
    """Modules that change nothing, though training could have changed them."""
    if base.family not in FAMILIES:
        return weights.zeros
    places = {name: base.known[clean(name)].places for name in weights.norms if clean(name) in base.known}
    silent = unheard((place for own in places.values() for place in own), FAMILIES[base.family].spec)
    return tuple(name for name in weights.zeros if not (places.get(name) and silent.issuperset(places[name])))


def _of_names(contents: Contents, base: Base) -> list[Finding]:
    known = {name: base.known.get(name) for name in contents.modules}
    left = _those(name for name in known if clean(name) != name or contents.modules[name].way == "lora_A.default")
    odd = _those(name for name, layer in known.items() if layer is None and name not in left)
    stray = _those(key for key in contents.stray if not key.startswith(BUNDLE))
    dotted_names = {name for name, layer in known.items() if layer and layer.style == DIFFUSERS}
    magnitudes = _those(
        module.keys["magnitude"]
        for name, module in contents.modules.items()
        if "magnitude" in module.keys and name not in dotted_names
    )
    dotted = _those(m.keys["alpha"] for n, m in contents.modules.items() if "alpha" in m.keys and n in dotted_names)
    found = []
    if left:
        says = f"{_modules(left)} named with leftovers of torch.compile or peft ({_few(left)}): no program reads them."
        found.append(Finding(Problem.LEFTOVERS, says, left))
    if (odd or stray) and base.known:
        says = f"{_count([*odd, *stray], 'name')} no layer of {base.label}: {_few([*odd, *stray])}."
        found.append(Finding(Problem.UNKNOWN_KEYS, says, (*odd, *stray)))
    found += _of_shapes(contents.modules, known, base) + _of_styles(known, base)
    if magnitudes:
        says = (
            f"{len(magnitudes)} DoRA magnitudes are called lora_magnitude_vector, where programs look for dora_scale."
        )
        found.append(Finding(Problem.MAGNITUDE_NAME, says, magnitudes))
    if dotted:
        says = f"{len(dotted)} alphas stand beside diffusers' names: diffusers refuses the file for them."
        found.append(Finding(Problem.ALPHA_BESIDE_DOTTED, says, dotted))
    if contents.embeddings:
        keys = _those(key for key in contents.stray if key.startswith(BUNDLE))
        says = f"It brings the textual inversion {_few(contents.embeddings)}, which A1111 alone reads from an adapter."
        found.append(Finding(Problem.EMBEDDING_INSIDE, says, keys))
    return found


def _of_shapes(modules: Mapping[str, Module], known: Mapping[str, Known | None], base: Base) -> list[Finding]:
    if base.own_size:
        return []
    both = {name: (modules[name], layer) for name, layer in known.items() if layer}
    unfit = _those(name for name, (module, layer) in both.items() if not module.fits(layer.shape))
    flat = _those(
        name
        for name, (module, layer) in both.items()
        if name not in unfit and not module.fits(layer.shape, exact=True) and module.type in ("LoRA", "DoRA")
    )
    found = []
    if unfit:
        says = f"{_modules(unfit)} of other sizes than the layers of {base.label}: {_few(unfit)}."
        found.append(Finding(Problem.OTHER_SHAPES, says, unfit))
    if flat:
        stored = "4-D where the base has a linear layer" if len(both[flat[0]][1].shape) == 2 else "2-D where it is 4-D"
        says = f"{_modules(flat)} stored {stored}: diffusers stops at that, the others reshape."
        found.append(Finding(Problem.SHAPE_OF_PROJECTION, says, flat))
    return found


def _of_styles(known: Mapping[str, Known | None], base: Base) -> list[Finding]:
    styles: dict[str, list[str]] = {}
    for name, layer in known.items():
        styles.setdefault(layer.style if layer else "", []).append(name)
    found = []
    if base.name == "sdxl" and SGM in styles and KOHYA in styles:
        says = f"{len(styles[SGM])} modules have the original block names and {len(styles[KOHYA])} diffusers' ones."
        found.append(Finding(Problem.MIXED_BLOCK_NAMES, says, tuple(styles[KOHYA])))
    dotted = [name for style in (DIFFUSERS, PEFT) for name in styles.get(style, ())]
    if dotted and base.name not in SD3_SIZES:
        says = "Its names are diffusers' own: A1111, Forge, ComfyUI and InvokeAI know kohya's."
        found.append(Finding(Problem.DIFFUSERS_NAMES, says, tuple(dotted)))
    wrong = {"sd15": TE1, "sd2": TE1, "sdxl": TE}.get(base.name, "")
    if wrong in styles:
        right = "lora_te1_" if base.name == "sdxl" else "lora_te_"
        says = f"{_modules(styles[wrong])} named {wrong}... where {base.label} has {right}...: some programs drop them."
        found.append(Finding(Problem.TEXT_PREFIX, says, tuple(styles[wrong])))
    return found


def _of_scale(contents: Contents) -> list[Finding]:
    found, metadata = [], contents.metadata
    missing, ranks = _those(unscaled(contents)), {module.rank for module in contents.modules.values()} - {None}
    said_alpha, said_rank = told.number(metadata, "ss_network_alpha"), told.number(metadata, "ss_network_dim")
    if missing:
        meant = f"; its metadata says {said_alpha:g}" if said_alpha and said_alpha != said_rank else ""
        says = f"{_modules(missing)} without an alpha: programs scale them by 1{meant}."
        found.append(Finding(Problem.ALPHA_MISSING, says, missing))
    if contents.in_config:
        off = _those(n for n, a in contents.alphas.items() if a is not None and a != contents.modules[n].rank)
        if off:
            says = f"{_modules(off)} scaled by an alpha outside the tensors, where only diffusers and peft look."
            found.append(Finding(Problem.ALPHA_IN_HEADER, says, off))
    same = _those(n for n, a in contents.alphas.items() if a is not None and a == contents.modules[n].rank == said_rank)
    if said_alpha and same and said_alpha != said_rank and len(same) == _of_rank(contents, said_rank):
        says = f"Every alpha equals the rank {said_rank:g}, but it was trained with {said_alpha:g} by its metadata: "
        says += f"it may act {said_rank / said_alpha:g} times as strong as it should."
        found.append(Finding(Problem.ALPHA_OVERWRITTEN, says, same))
    if said_rank and ranks and said_rank not in ranks:
        says = f"Its metadata says rank {said_rank:g}, its matrices have {_few([str(r) for r in sorted(ranks)])}."
        found.append(Finding(Problem.RANK_DISAGREES, says))
    return found


def _of_metadata(contents: Contents, base: Base) -> list[Finding]:
    found, said = [], said_base(contents.metadata)
    if said and base.name and said != base.name and not base.own_size:
        label = FAMILY_LABELS.get(said) or SIZE_LABELS[said]
        says = f"Its metadata names {label}, but its matrices are those of {base.label}."
        found.append(Finding(Problem.FAMILY_DISAGREES, says))
    elif base.family in ("sd2", "sdxl") and hidden_in_a1111(contents, base):
        entry = 'ss_v2 = "True"' if base.family == "sd2" else "ss_base_model_version"
        says = f"Its metadata lacks {entry}: A1111 takes it for Stable Diffusion 1.x and hides it from its list."
        found.append(Finding(Problem.HIDDEN_IN_A1111, says))
    damaged = told.broken(contents.metadata)
    if contents.config_damaged and not any(HEADER_CONFIG in sentence for sentence in damaged):
        damaged.append(f"The alphas in {HEADER_CONFIG} cannot be read.")
    return found + [Finding(Problem.METADATA_BROKEN, sentence) for sentence in damaged]


def _of_hash(metadata: Mapping[str, str], digest: str) -> list[Finding]:
    """Both hashes are of the tensors' bytes, without the header."""
    found = []
    for key in ("sshs_model_hash", "modelspec.hash_sha256"):
        stored = told.digest(metadata, key)
        if stored == NOTHING != digest:
            says = f"{key} is the hash of nothing, which many files share: sites credit them to strangers."
            found.append(Finding(Problem.HASH_OF_NOTHING, says))
        elif stored and stored != digest:
            says = f"{key} is {stored[:12]}..., but the tensors' bytes have {digest[:12]}...: they were changed."
            found.append(Finding(Problem.HASH_WRONG, says))
    return found


def _of_rank(contents: Contents, rank: float | None) -> int:
    return sum(module.rank == rank for module in contents.modules.values())


def _those(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _few(names: list[str] | tuple[str, ...], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def _count(names: list[str] | tuple[str, ...], noun: str) -> str:
    return f"1 {noun} fits" if len(names) == 1 else f"{len(names):,} {noun}s fit"


def _modules(names: list[str] | tuple[str, ...]) -> str:
    return "1 module is" if len(names) == 1 else f"{len(names):,} modules are"


def _tensors(names: tuple[str, ...]) -> str:
    return "1 tensor holds" if len(names) == 1 else f"{len(names):,} tensors hold"
