"""What a person asks of a run while it trains: small files in its folder control/, written by the app.

stop, pause        save and end after this step, or at once while previews are made
less_memory        save after this step and go on in the next way that needs less memory
sample_now         empty: validate and draw the previews now; else JSON: {"prompt", "seed", "strength"}, or a list
prompts.json       a list of texts: the preview prompts from now on, also after a resume
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers import json_values
from trainers.errors import UserError

SEEDS = range(2**63)  # what torch takes
STRONGEST = 10.0
NOTHING, LESS_MEMORY, END = range(3)  # what a step may be followed by


@dataclass(frozen=True)
class Wish:
    """One picture that a person asks for; seed None is the previews' own."""

    prompt: str
    seed: int | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class Control:
    folder: Path

    def asked(self, word: str) -> bool:
        """Whether the app put a file of that name there."""
        return (self.folder / word).exists()

    @property
    def ends(self) -> bool:
        """Whether the run is to save and end, for good or for a while."""
        return self.asked("stop") or self.asked("pause")

    @property
    def wish(self) -> int:
        """NOTHING, LESS_MEMORY or END; the largest counts where several are wished."""
        return END if self.ends else LESS_MEMORY if self.asked("less_memory") else NOTHING

    def forget_less_memory(self) -> None:
        """It is done, or cannot be."""
        (self.folder / "less_memory").unlink(missing_ok=True)

    def take(self) -> list[Wish] | None:
        """The pictures that sample_now asks for, which is gone afterwards; [] for the previews, None for nothing.

        UserError where it cannot be understood.
        """
        file, taken = self.folder / "sample_now", self.folder / "sample_now.taken"
        if not file.exists():
            return None
        try:
            os.replace(file, taken)  # first of all, so that what is asked for meanwhile stays for the next step
            text = taken.read_text("utf-8")
            taken.unlink()
        except UnicodeDecodeError:
            text = "?"
        except OSError:  # Windows: the app is just reading it
            return None
        return parse_wishes(text)

    def prompts(self) -> list[str]:
        """The texts of prompts.json; none where there is no such file. UserError where it cannot be understood."""
        try:
            text = (self.folder / "prompts.json").read_text("utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("control/prompts.json cannot be read.", "The prompts of the settings are drawn.") from error
        found = _json(text)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise UserError("control/prompts.json is no list of texts.", "The prompts of the settings are drawn.")
        return [one.strip() for one in found if one.strip()]


def parse_wishes(text: str) -> list[Wish]:
    """sample_now's text as wishes; none for an empty one. UserError where it cannot be understood."""
    if not text.strip():
        return []
    found = _json(text)
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not found:
        raise UserError("control/sample_now is no JSON of a prompt, a seed and a strength.")
    return [_wish(one) for one in found]


def _wish(found: Any) -> Wish:
    values = {"seed": None, "strength": 1.0, **found} if isinstance(found, dict) else {}
    prompt, seed, strength = (values.get(name) for name in ("prompt", "seed", "strength"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError("A picture was asked for without a prompt.")
    if seed is not None and (type(seed) is not int or seed not in SEEDS):
        raise UserError(f"A picture was asked for with the seed {seed}.", "Seeds are whole numbers from 0 on.")
    if type(strength) not in (int, float) or not math.isfinite(strength) or abs(strength) > STRONGEST:
        raise UserError(f"A picture was asked for at strength {strength}.", "It may lie between -10 and 10.")
    return Wish(prompt.strip(), seed, float(strength))


def _json(text: str) -> Any:
    try:
        return json_values.parse(text)
    except ValueError:
        return None
