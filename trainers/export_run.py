"""Write the adapter file of a run's checkpoint; the checkpoint and the settings are all that it takes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainers import checkpoint, config_io
from trainers.adapters.adapter import DENOISER, Place, Weights, modules_of_state
from trainers.adapters.adapter_file import read_adapter
from trainers.adapters.tokens import tokens_of_state
from trainers.errors import UserError
from trainers.export.check_file import compare
from trainers.export.facts import unpack
from trainers.export.metadata import RunFacts
from trainers.export.writer import FORMS, ExportReport, export_report
from trainers.families.headers import read_header
from trainers.finish import cover, ending, forms_of


def export_run(run: Path, step: str | None, form: str, to: Path | None, name: str = "") -> dict[str, Any]:
    """Write and verify the adapter of a checkpoint (the newest without `step`), with its picture and name.json.

    It goes to `to`, else to the run's output folder. Every file has a name of its own: the run's for the end of the
    run, `<name>-step00000500` before it; or just `name`, where one is given. Behind it stands `-diffusers` or `-peft`
    (on SD 3 also `-kohya`) in those layouts.

    Raises:
        UserError: no such checkpoint or layout, a damaged checkpoint, numbers that the precision cannot hold, a full
            disk, or another adapter that has the file's name.
    """
    if form not in FORMS:
        raise UserError(f"There is no adapter layout {form!r}.", f"Choose one of {', '.join(FORMS)}.")
    config = config_io.load(run / "config.toml")
    if name:
        config = config_io.merge(config, {"saving": {"name": name}})
    state, packed = checkpoint.load_exported(_chosen(run, step))
    facts, spec = unpack(packed)
    modules = modules_of_state(state, config.adapter)

    def is_own(path: Path) -> bool:
        return _is_of(path, facts) if config.saving.privacy != "minimal" else _holds(path, modules, config.saving.dtype)

    end = ending(form, forms_of(config, spec))
    stems = [config.saving.name] if name else [config.saving.name, f"{config.saving.name}-step{facts.steps:08d}"]
    path, again = _target(to or run / "output", stems, end, facts, is_own)
    beside = {"keep": not again, "vectors": tokens_of_state(state)}
    report = export_report(modules, config, facts, spec, path, cover(run, facts.steps), form, **beside)
    return _said(report, facts)


def _chosen(run: Path, step: str | None) -> Path:
    saved = {int(folder.name.split("_")[1]): folder for folder in checkpoint.list_checkpoints(run / "checkpoints")}
    if not saved:
        raise UserError(f"{run.name} has no checkpoint yet.", "Train it; stopping a run saves one.")
    wanted = str(max(saved)) if step is None else step.strip().removeprefix("step_")
    if not wanted.isdecimal() or int(wanted) not in saved:
        known = ", ".join(map(str, saved))
        raise UserError(f"{run.name} has no checkpoint of step {step}.", f"Its checkpoints: {known}.")
    return saved[int(wanted)]


def _target(
    folder: Path, stems: list[str], ending: str, facts: RunFacts, is_own: Callable[[Path], bool]
) -> tuple[Path, bool]:
    """Where the file goes, and whether this checkpoint's own lies there; a file of another one is never replaced."""
    paths = [folder / f"{stem}{ending}" for stem in stems]
    at_end = facts.steps == facts.total_steps
    for path in paths:
        own = path.exists() and is_own(path)
        if own or (not path.exists() and (at_end or path == paths[-1])):
            return path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors"), own
    message = f"{paths[-1]} is there already, and is not known as the adapter of this checkpoint."
    raise UserError(message, "Move it away, or choose another name or folder.")


def _is_of(path: Path, facts: RunFacts) -> bool:
    """Whether an adapter (a file, or a folder in peft's layout) is of the very checkpoint that has these facts."""
    for file in path.glob("*/adapter_model.safetensors") if path.is_dir() else [path]:
        try:
            found = read_header(file)[1]
        except UserError:
            return False
        return (found.get("ss_session_id"), found.get("ss_steps")) == (facts.session, str(facts.steps))
    return False


def _holds(path: Path, modules: Mapping[Place, Weights], dtype: str) -> bool:
    """The same where the file says nothing of its run: whether it holds these very numbers."""
    try:
        return path.is_file() and compare(read_adapter(path).modules, modules, path.name, dtype) >= 0
    except (UserError, RuntimeError):  # layers of these names, but of another size
        return False


def _said(report: ExportReport, facts: RunFacts) -> dict[str, Any]:
    names = {part: "denoiser" if part == DENOISER else "text encoder" for part in report.modules}
    read_back = f"all {sum(report.modules.values())} layers read back as trained"
    return {
        "adapter": str(report.path),
        "step": facts.steps,
        "format": f"{report.form}, {report.dtype}",
        "modules": {names[part]: count for part, count in report.modules.items()},
        "verified": f"{read_back}; {report.dtype} changes one by {report.rounding:.2%} at most",
        "hash": report.hash,
        "files": [str(file) for file in report.files],
        "warnings": report.warnings,
    }
