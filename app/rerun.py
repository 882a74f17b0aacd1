"""The same training once more with one setting changed, as a new run of the same project."""

from app import runs
from app.about import annotate, inherit_preset, read_about
from app.compare import Change, changes
from app.library import project_of
from app.paths import Home
from app.runs import Run
from app.setting_text import from_text, nested
from trainers import config_io
from trainers.config import TrainConfig
from trainers.config_problems import SETTINGS
from trainers.errors import UserError
from trainers.families.locate import require_base


def with_change(run: Run, name: str, value: str) -> tuple[TrainConfig, Change]:
    """The settings of `run` with `name` set to what `value` says in the setting's field, and the change that this is.

    UserError where the setting is unknown, the value is wrong, or it is the one that the run had.
    """
    if not name:
        raise UserError("No setting is chosen.", "Choose the one that the new run shall have differently.")
    before = config_io.load(run.config)
    meant = from_text(name, value) if name in SETTINGS else value  # of an unknown one, `merge` complains
    after = config_io.merge(before, nested({name: meant}))
    found = [change for change in changes(before, after) if change.name == name]
    if not found:
        raise UserError("The run had this value already.", "Type another one.")
    return runs.with_absolute_paths(after), found[0]


def rerun(home: Home, run: Run, name: str, value: str, said: str) -> Run:
    """Make the new run, not started; `said` tells the change in words and becomes its note."""
    project = project_of(home, run)
    config, _ = with_change(run, name, value)
    require_base(config.model)
    made = runs.create(project, config)
    inherit_preset(made, run)
    old = read_about(run).name or run.folder.name
    annotate(made, f"As {old}, but {said}")
    return made
