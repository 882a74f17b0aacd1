"""kohya's data set files: `[general]`, `[[datasets]]`, `[[datasets.subsets]]`; the inner one wins.

Our data settings hold for all folders, theirs for each subset: what the first subset trains with is taken, and where
another differs, its line says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.importing import kohya_folders
from trainers.importing.kohya import DATA
from trainers.importing.rows import Lacks, Line, Row, Rule, Table, Unneeded, convert
from trainers.importing.theirs import Theirs, resolve
from trainers.importing.values import NotSupported, is_off, switch, text, whole, whole_or

ONE_FOR_ALL = "One value serves all folders: that of the first."
REGULARISATION = Lacks("Regularisation pictures are not read; data.class_words and data.class_pictures serve that end.")
TABLE: Table = {
    **DATA,
    "batch_size": Row("data.batch_size", whole),
    "is_reg": Row("", switch),
    "image_dir": Row("", text),
    "num_repeats": Row("", whole),
    "class_tokens": Row("", text),
    "metadata_file": Lacks("Captions are read beside the pictures, not from a metadata file."),
    "network_multiplier": Lacks("The adapter always trains at full strength.", (1,)),
    "custom_attributes": Lacks("Subsets have no attributes of their own; loss.preservation keeps what the base knew."),
}
PER_FOLDER = {
    "image_dir": ("data.folders",),
    "num_repeats": ("data.folders", "data.folder_names"),
    "class_tokens": ("data.folders", "data.folder_names", "data.trigger"),
}
DEFAULTS = {"data.bucketing": False, "data.keep_tokens": 0, "data.validation_share": 0.0}


@dataclass(frozen=True)
class Subset:
    """One folder: where its table stands in the file, and its settings with those around it."""

    name: str
    values: dict[str, Any]
    levels: dict[str, str] = field(default_factory=dict)  # setting -> name of the level that says it

    @property
    def is_trained(self) -> bool:
        return is_off(self.values.get("is_reg")) and bool(self.values.get("image_dir"))


def flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    """{"general.keep_tokens": 1, "datasets[0].subsets[0].image_dir": "cats", ...}, in the file's order."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if name == "datasets" and isinstance(value, list):
            for i, dataset in enumerate(value):
                found |= _level(f"datasets[{i}]", dataset)
        elif isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return found


def subsets(content: Mapping[str, Any]) -> list[Subset]:
    """Every subset with what it inherits."""
    found = []
    for i, dataset in enumerate(_tables(content.get("datasets"))):
        for j, subset in enumerate(_tables(dataset.get("subsets"))):
            name = f"datasets[{i}].subsets[{j}]"
            levels = (("general", content.get("general", {})), (f"datasets[{i}]", dataset), (name, subset))
            values, origin = {}, {}
            for level, table in levels:
                own = (
                    {key: value for key, value in table.items() if key != "subsets"} if isinstance(table, dict) else {}
                )
                values |= own
                origin |= dict.fromkeys(own, level)
            found.append(Subset(name, values, origin))
    return found


def folders(content: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """data.folders, data.folder_names and data.trigger of all trained subsets, each folder once."""
    named: dict[str, str] = {}
    for subset in subsets(content):
        if subset.is_trained:
            named.setdefault(resolve(text(subset.values["image_dir"]), place), _folder_name(subset))
    where, names = list(named), list(named.values())
    return {"data.folders": where, "data.folder_names": names, **kohya_folders.trigger(where, names)} if named else {}


def lines(content: Mapping[str, Any], place: Path) -> list[Line]:
    """What becomes of every setting of the file."""
    found = subsets(content)
    trained = [subset for subset in found if subset.is_trained]
    first = trained[0].values if trained else {}
    where = folders(content, place)
    table = {key: _in_place(key, row, trained, first) for key, row in TABLE.items()}
    result = []
    for name, value in flatten(content).items():
        level, _, key = name.rpartition(".")
        if any(subset.name == level and not subset.is_trained for subset in found):
            row: Any = REGULARISATION
        elif key in PER_FOLDER:
            row = Rule(_per_folder(PER_FOLDER[key], where))
        else:
            row = table.get(key)
        only = {name: row} if row else {}
        result += convert(only, Theirs({name: value}, place, folders=where))
    return result


def batch_size(content: Mapping[str, Any]) -> int:
    """Of the first subset; 0 where the run's own counts."""
    return whole_or(0, next((s.values.get("batch_size") for s in subsets(content) if s.is_trained), None))


def _in_place(key: str, row: Any, trained: list[Subset], first: Mapping[str, Any]) -> Any:
    """The row, for a value that is the first subset's own; for another, the reason why it is passed over."""
    if not isinstance(row, Row | Rule) or key in PER_FOLDER or key == "is_reg":
        return Unneeded("This folder is trained.") if key == "is_reg" else row

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        if value != first.get(key):
            level = next(iter(theirs.values)).rpartition(".")[0]
            overridden = not any(subset.levels.get(key) == level for subset in trained)
            raise NotSupported("An inner table says otherwise." if overridden else ONE_FOR_ALL)
        around = Theirs(dict(first), theirs.place)
        return row.decide(value, around) if isinstance(row, Rule) else {row.ours: row.convert(value)}

    return Rule(decide)


def _per_folder(ours: tuple[str, ...], where: Mapping[str, Any]) -> Any:
    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        return {name: where[name] for name in ours if name in where}

    return decide


def _folder_name(subset: Subset) -> str:
    repeats = min(whole_or(1, subset.values.get("num_repeats")), 9999)
    return f"{repeats}_{text(subset.values.get('class_tokens') or '')}"


def _level(name: str, table: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items() if isinstance(table, Mapping) else ():
        if key == "subsets" and isinstance(value, list):
            for i, subset in enumerate(value):
                found |= _level(f"{name}.subsets[{i}]", subset)
        else:
            found[f"{name}.{key}"] = value
    return found


def _tables(value: Any) -> list[dict[str, Any]]:
    return [table for table in value if isinstance(table, dict)] if isinstance(value, list) else []
