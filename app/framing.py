"""How the run that a project is set up for cuts its pictures: as its draft has it, on its base."""

import functools
from pathlib import Path
from typing import NamedTuple

from app import drafts
from app.paths import Home
from app.presets import EMBEDDED
from app.projects import Project
from app.setting_text import from_text, nested
from trainers import config_io
from trainers.config import DataConfig, TrainConfig
from trainers.data.buckets import plan
from trainers.data.types import Crop, Example
from trainers.errors import UserError
from trainers.families.detect import FAMILY_LABELS
from trainers.families.sides import Sides, sides_of

EMBEDDED_SIDES = Sides(64, 16)  # assets/base: its VAE halves twice, its denoiser twice
USUAL_SIDES = Sides(512, 64)  # of Stable Diffusion 1.x; its multiple suits every family
OWN = 0  # in place of a resolution: the one of the project's own run


class Framing(NamedTuple):
    """What decides how a picture is cut. The settings are those of DataConfig, by name; sizes in pixels."""

    resolution: int = EMBEDDED_SIDES.resolution
    multiple: int = EMBEDDED_SIDES.multiple
    base: str = "built-in"  # what people call it
    embedded: bool = True  # whether captions are read by the built-in base
    bucketing: bool = True
    bucket_step: int | None = None
    bucket_min: int | None = None
    bucket_max: int | None = None
    no_upscale: bool = False
    flip: bool = False
    most: int | None = None  # how long a side may be on this base

    def at(self, resolution: int) -> "Framing":
        """The same settings on a base of another resolution: 64 is the built-in one's; OWN changes nothing."""
        if resolution in (OWN, self.resolution):
            return self
        if resolution == EMBEDDED_SIDES.resolution:
            return self._replace(resolution=resolution, multiple=EMBEDDED_SIDES.multiple, most=None, embedded=True)
        multiple = USUAL_SIDES.multiple if self.embedded else self.multiple
        return self._replace(resolution=resolution, multiple=multiple, embedded=False)

    @property
    def refused(self) -> str:
        """Why these settings cut nothing on this base, as a sentence; "" where they do."""
        try:
            crop_of((self.resolution, self.resolution), self)
        except UserError as error:
            return drafts.titled(f"{error.message} {error.hint}".strip())
        return ""


@functools.lru_cache(4096)
def crop_of(size: tuple[int, int], framing: Framing) -> Crop:
    """What of a picture of that size is trained. UserError where the settings do not suit the base."""
    return plan(
        [Example(Path(), "", size, "")], _settings(framing), framing.resolution, framing.multiple, framing.most
    )[0]


def framing_of(home: Home, project: Project) -> Framing:
    """That of the run which the Train page would make now; while some settings are wrong, of the others."""
    planned = drafts.plan(home, project)
    config = planned.config or _right_settings(planned)
    base = planned.draft.base
    try:
        sides = sides_of(config.model, planned.family)
    except UserError:  # it is told at the base's field
        sides = USUAL_SIDES
    settings = {name: value for name, value in config.data if name in Framing._fields and name != "resolution"}
    return Framing(
        config.data.resolution or sides.resolution,
        sides.multiple,
        _called(planned),
        base == EMBEDDED,
        most=sides.most,
        **settings,
    )


@functools.lru_cache(16)
def _settings(framing: Framing) -> DataConfig:
    return DataConfig(**{name: value for name, value in framing._asdict().items() if name in DataConfig.model_fields})


def _called(planned: drafts.Plan) -> str:
    if planned.draft.base == EMBEDDED:
        return "built-in"
    if drafts.BASE in planned.problems:
        return "not found"
    return FAMILY_LABELS.get(planned.family, "its family shows later")


def _right_settings(planned: drafts.Plan) -> TrainConfig:
    """The preset's advice with those of the person's changes that can be made, one by one."""
    config = planned.start
    for name, text in planned.draft.texts.items():
        if name.startswith(("data.", "model.")):
            config = config_io.examine(config, nested({name: from_text(name, text)}))[0] or config
    return config
