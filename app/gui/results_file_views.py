"""What the Results page says of the pick, as HTML: the adapter file made of it, and where it can be sent."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from app.gui.markup import button, edit, notice, text
from app.picks import Pick
from app.send_to import PROGRAMS

LAYOUTS = {  # layout -> for whom
    "kohya": "kohya: most image programs",
    "diffusers": "diffusers: Python scripts, and SD 3 in ComfyUI",
    "peft": "peft: a folder for Python scripts",
}


def picked_line(found: Pick | None) -> str:
    """Which checkpoint is picked."""
    if found is None:
        return notice("No checkpoint is picked yet.", "Compare them and press Pick beside the best one.")
    return notice(f"Picked: step {found.step:,} at strength {found.strength:g}.", kind="good")


def saved(found: Pick | None, trigger: str) -> str:
    """What became of the pick: the file, its verification, and what one needs to use it."""
    if found is None or not found.made:
        return ""
    lines = [f"Verified: {found.verified}."] + ([f"Hash {found.hash[:12]}."] if found.hash else [])
    parts = [
        '<div class="dr-stack">',
        notice(f"Saved as {found.adapter}", " ".join(lines), "good"),
        *(notice(warning, kind="warning") for warning in found.warnings),
        _interfaces(found),
        '<div class="dr-row">',
        _copy(trigger, f"Copy trigger word: {trigger}") if trigger else "",
        _copy(f"{found.strength:g}", f"Copy suggested strength: {found.strength:g}"),
        button("Open folder", "open"),
        "</div></div>",
    ]
    return "".join(parts)


def sending(
    found: Pick | None,
    folders: Mapping[str, Path],
    asking: str = "",
    said: str = "",
    name: str = "",
    typed: str = "",
) -> str:
    """A button per image program; `asking`: the one whose folder is to be named; `said`: HTML of what happened.

    `name`: another name that is free there, where the adapter's own is taken. `typed`: a folder that was refused.
    """
    if found is None or not found.made:
        return ""
    rows = "".join(_program(program, folders.get(program), found) for program in PROGRAMS)
    question = _question(asking, typed or str(folders.get(asking, ""))) if asking else ""
    again = ""
    if name:
        again = f'<div class="dr-row">{button(f"Send as {name}", "send", "primary", program=asking, called=name)}</div>'
    title = '<h3 class="dr-title">Send to an image program</h3>'
    return f'<div class="dr-stack">{title}{said}{again if name else question}<ul class="dr-programs">{rows}</ul></div>'


def sent(program: str, files: Sequence[Path], found: Pick) -> str:
    """What was copied where, what to do there, and what to expect."""
    then = PROGRAMS[program].then
    done = notice(f"{files[0].name} is in {files[0].parent}.", then, "good")
    beside = [file for file in files[1:] if file.suffix == ".safetensors"]
    if beside:
        word = f"The trigger word's own vectors are in {beside[0]}."
        done += notice(word, f"In ComfyUI write embedding:{beside[0].stem}." * (program == "ComfyUI"))
    if not found.loads_in(program):
        done += notice(f"{program}{_expected(found.said_of(program))}", kind="warning")
    return f'<div class="dr-stack">{done}</div>'


def _expected(said: str) -> str:
    """What a program will do with a file that it does not load whole, by the verdict on it."""
    verdict, _, reason = said.partition(": ")
    will = {"loads in part": "will not use it whole", "does not load": "will not load it"}.get(verdict)
    return f" {will}: {reason}" if will else f": {said}"


def _interfaces(found: Pick) -> str:
    if isinstance(found.interfaces, str):
        said = found.interfaces.replace("`", "")
        return notice("Where it loads", f"{said[:1].upper()}{said[1:]}") if said else ""
    rows = "".join(
        f'<li><strong>{text(name)}</strong> <span class="{"dr-yes" if found.loads_in(name) else "dr-no"}">'
        f"{text(said)}</span></li>"
        for name, said in found.interfaces.items()
    )
    return f'<details><summary>Which programs load it</summary><ul class="dr-verdicts">{rows}</ul></details>'


def _copy(value: str, label: str) -> str:
    return f'<button type="button" class="dr-button" data-copy="{text(value)}">{text(label)}</button>'


def _program(program: str, folder: Path | None, found: Pick) -> str:
    name = f"Send to {program}"
    where = f'<span class="dr-mono">{text(folder)}</span>' if folder else '<span class="dr-quiet">not found here</span>'
    one = button(name, "send", program=program) if folder else button(name, "ask", program=program)
    other = button("Another folder", "ask", "quiet", program=program) if folder else ""
    return f"<li>{one}{where}{other}</li>"


def _question(program: str, folder: str) -> str:
    name = text(f"LoRA folder of {program}")
    value = f' value="{text(folder)}"' if folder else ""
    field = f'<input class="dr-field" type="text" aria-label="{name}"{value} {edit("folder", program=program)}>'
    hint = text("Press Enter to remember it.")
    return f'<div class="dr-question"><label>{name}</label>{field}<span class="dr-quiet">{hint}</span></div>'
