"""Draw the `mascot` concept: zibbo, a teal one-eyed creature with a striped antenna, in 12 pictures with captions.

`python assets/concepts/draw_mascot.py` writes assets/concepts/mascot/. Everything is drawn at four times the size and
scaled down; the same pictures come out every time. Lengths are in hundredths of the picture's side.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter

HERE = Path(__file__).parent
SIDE = 256  # pixels
INNER = 1024  # pixels while drawing

TEAL, DEEP, PALE = "#19b5a5", "#0c7f7b", "#b8f1e4"
ORANGE, CREAM, YELLOW, INK = "#ff8a1f", "#fff3d6", "#ffd23e", "#123033"


@dataclass(frozen=True)
class Pose:
    """What zibbo does. Angles in degrees; a hand at 0 points right, at 90 up."""

    caption: str
    x: float = 50  # centre of the body
    y: float = 57
    radius: float = 29
    look: tuple[float, float] = (0, 0)  # where the pupil sits in the eye, -1..1
    eye: str = "open"  # open, closed, happy
    mouth: str = "smile"  # smile, laugh, small, round
    hands: tuple[float, float] = (-150, -30)  # left and right
    feet: str = "standing"  # standing, dangling, walking
    lean: float = 8  # how far the antenna bends to the right
    backdrop: str = "#ffffff"  # a colour, or the name of a scene
    extra: tuple[str, ...] = field(default=())  # scarf, hat, balloon, sleepy, flower


POSES = {
    "standing": Pose("zibbo"),
    "waving": Pose("zibbo waving", hands=(-150, 48), look=(0.3, -0.2), lean=-9),
    "jumping": Pose(
        "zibbo jumping with joy",
        y=53,
        radius=26,
        hands=(140, 40),
        feet="dangling",
        mouth="laugh",
        look=(0, -0.5),
    ),
    "sleeping": Pose("zibbo sleeping", y=60, eye="closed", mouth="small", lean=17, extra=("sleepy",)),
    "looking-left": Pose(
        "zibbo walking and looking to the left",
        look=(-0.9, 0),
        hands=(170, -60),
        feet="walking",
        lean=15,
    ),
    "balloon": Pose(
        "zibbo holding a red balloon",
        x=42,
        y=62,
        radius=25,
        hands=(-150, 42),
        look=(0.7, -0.7),
        lean=-10,
        extra=("balloon",),
    ),
    "scarf": Pose("zibbo wearing a red scarf", look=(-0.2, 0.2), extra=("scarf",)),
    "party": Pose(
        "zibbo laughing with a purple party hat, on a pink background",
        eye="happy",
        mouth="laugh",
        y=59,
        hands=(150, 30),
        lean=19,
        backdrop="#ffd0dd",
        extra=("hat",),
    ),
    "portrait": Pose(
        "a close portrait of zibbo, on a yellow background",
        y=66,
        radius=40,
        look=(0, -0.1),
        mouth="smile",
        lean=6,
        backdrop="#ffe9a3",
    ),
    "meadow": Pose(
        "zibbo waving on a green meadow",
        y=60,
        radius=26,
        hands=(132, -30),
        look=(-0.3, -0.1),
        backdrop="meadow",
        extra=("flower",),
    ),
    "night": Pose(
        "zibbo looking at the stars at night", y=62, radius=26, look=(0.5, -0.9), mouth="round", backdrop="night"
    ),
    "beach": Pose(
        "zibbo smiling on a sandy beach", x=47, y=60, radius=26, eye="happy", hands=(-150, 35), backdrop="beach"
    ),
}


class Sheet:
    """A picture to draw on in hundredths of its side."""

    def __init__(self, colour: str | tuple[int, int, int, int]) -> None:
        self.image = Image.new("RGBA", (INNER, INNER), colour)
        self.pen = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, rx: float, ry: float, **how: Any) -> None:
        self.pen.ellipse([_px(x - rx), _px(y - ry), _px(x + rx), _px(y + ry)], **how)

    def shape(self, points: list[tuple[float, float]], colour: str) -> None:
        self.pen.polygon([(_px(x), _px(y)) for x, y in points], fill=colour)

    def stroke(self, points: list[tuple[float, float]], width: float, colour: str) -> None:
        """A line with round ends and joints."""
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            self.pen.line([_px(x0), _px(y0), _px(x1), _px(y1)], fill=colour, width=_px(width))
        for x, y in points:
            self.disc(x, y, width / 2, width / 2, fill=colour)

    def lay(self, colour: str, mask: Image.Image, strength: float = 1.0) -> None:
        self.image.paste(Image.new("RGBA", self.image.size, colour), (0, 0), mask.point(lambda v: int(v * strength)))


def draw(pose: Pose) -> Image.Image:
    """One finished picture, RGB, 256x256."""
    sheet = Sheet(pose.backdrop if pose.backdrop.startswith("#") else "#ffffff")
    SCENES.get(pose.backdrop, lambda _: None)(sheet)
    _shadow(sheet, pose)
    for extra in pose.extra:
        BEHIND.get(extra, lambda *_: None)(sheet, pose)
    _antenna(sheet, pose)
    _feet(sheet, pose)
    _hands(sheet, pose)
    _body(sheet, pose)
    _face(sheet, pose)
    for extra in pose.extra:
        BEFORE.get(extra, lambda *_: None)(sheet, pose)
    return sheet.image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def draw_all(folder: Path) -> None:
    """Write NAME.png and NAME.txt of every pose."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pose in POSES.items():
        draw(pose).save(folder / f"{name}.png", optimize=True)
        (folder / f"{name}.txt").write_text(pose.caption + "\n", encoding="utf-8")


def _px(hundredths: float) -> int:
    return round(hundredths * INNER / 100)


def _disc_mask(x: float, y: float, rx: float, ry: float, blur: float = 0) -> Image.Image:
    mask = Image.new("L", (INNER, INNER))
    ImageDraw.Draw(mask).ellipse([_px(x - rx), _px(y - ry), _px(x + rx), _px(y + ry)], fill=255)
    return mask.filter(ImageFilter.GaussianBlur(_px(blur))) if blur else mask


def _shadow(sheet: Sheet, pose: Pose) -> None:
    drop = {"standing": 1.22, "walking": 1.26, "dangling": 1.58}[pose.feet]
    ground = min(pose.y + pose.radius * drop, 95)
    sheet.lay("#20343a", _disc_mask(pose.x, ground, pose.radius * 0.8, 2.6, blur=1.2), 0.28)


def _antenna(sheet: Sheet, pose: Pose) -> None:
    """A tapering stalk in orange and cream rings, with a glowing yellow ball on top."""
    foot, length = pose.y - pose.radius * 0.9, pose.radius * 0.78
    steps = 60
    for i in range(steps + 1):
        t = i / steps
        x, y = pose.x + pose.lean * t * t, foot - length * t
        width = pose.radius * (0.17 - 0.05 * t)
        sheet.disc(x, y, width, width, fill=ORANGE if int(t * 5) % 2 == 0 else CREAM)
    x, y, ball = pose.x + pose.lean, foot - length, pose.radius * 0.25
    sheet.disc(x, y, ball, ball, fill="#f0a81c")
    sheet.disc(x - ball * 0.08, y - ball * 0.1, ball * 0.86, ball * 0.86, fill=YELLOW)
    sheet.disc(x - ball * 0.3, y - ball * 0.35, ball * 0.3, ball * 0.3, fill="#fff6c8")


def _feet(sheet: Sheet, pose: Pose) -> None:
    r = pose.radius
    spread, down = {
        "standing": ((-0.45, 0.45), (1.0, 1.0)),
        "dangling": ((-0.5, 0.5), (1.0, 0.98)),
        "walking": ((-0.7, 0.35), (0.88, 1.02)),
    }[pose.feet]
    for side, drop in zip(spread, down, strict=True):
        x, y = pose.x + side * r, pose.y + drop * r
        sheet.disc(x, y + r * 0.05, r * 0.32, r * 0.2, fill="#d96a0e")
        sheet.disc(x, y, r * 0.3, r * 0.17, fill=ORANGE)


def _hands(sheet: Sheet, pose: Pose) -> None:
    r = pose.radius
    for angle in pose.hands:
        dx, dy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
        shoulder = (pose.x + dx * r * 0.85, pose.y + dy * r * 0.85)
        hand = (pose.x + dx * r * 1.28, pose.y + dy * r * 1.28)
        sheet.stroke([shoulder, hand], r * 0.22, DEEP)
        sheet.disc(*hand, r * 0.17, r * 0.17, fill=TEAL)


def _body(sheet: Sheet, pose: Pose) -> None:
    """A ball: dark rim, teal, light from the upper left, a pale belly, three darker freckles on either cheek."""
    x, y, r = pose.x, pose.y, pose.radius
    ball = _disc_mask(x, y, r, r * 0.97)
    sheet.lay(DEEP, ball)
    sheet.lay(TEAL, ImageChops.multiply(ball, _disc_mask(x - r * 0.06, y - r * 0.1, r * 0.95, r * 0.92, blur=r * 0.06)))
    sheet.lay(
        "#5fe0cb",
        ImageChops.multiply(ball, _disc_mask(x - r * 0.35, y - r * 0.45, r * 0.5, r * 0.42, blur=r * 0.2)),
        0.8,
    )
    sheet.lay(PALE, ImageChops.multiply(ball, _disc_mask(x, y + r * 0.72, r * 0.6, r * 0.42, blur=0.3)), 0.9)
    for side in (-1, 1):
        for dx, dy in ((0.72, 0.12), (0.83, 0.2), (0.72, 0.28)):
            sheet.disc(x + side * dx * r, y + dy * r, r * 0.035, r * 0.035, fill=DEEP)


def _face(sheet: Sheet, pose: Pose) -> None:
    x, y, r = pose.x, pose.y - pose.radius * 0.16, pose.radius
    white = r * 0.5
    if pose.eye == "open":
        sheet.disc(x, y, white * 1.07, white * 1.07, fill=DEEP)
        sheet.disc(x, y, white, white, fill="#ffffff")
        px, py = x + pose.look[0] * white * 0.36, y + pose.look[1] * white * 0.36
        sheet.disc(px, py, white * 0.62, white * 0.62, fill="#e2560b")
        sheet.disc(px, py, white * 0.55, white * 0.55, fill=ORANGE)
        sheet.disc(px, py, white * 0.36, white * 0.36, fill=INK)
        sheet.disc(px - white * 0.2, py - white * 0.22, white * 0.15, white * 0.15, fill="#ffffff")
        sheet.disc(px + white * 0.18, py + white * 0.2, white * 0.08, white * 0.08, fill="#ffffff")
    else:  # a lid over the eye: it stays the same one big eye
        sheet.disc(x, y, white * 1.07, white * 1.07, fill=DEEP)
        sheet.disc(x, y, white, white, fill="#4fd3c1")
        down = -0.25 if pose.eye == "closed" else 0.25
        _arc(sheet, x, y + down * white, white * 0.66, white * 0.5, up=pose.eye == "happy", width=r * 0.1)
    _mouth(sheet, x, pose.y + r * 0.5, r, pose.mouth)


def _mouth(sheet: Sheet, x: float, y: float, r: float, kind: str) -> None:
    if kind == "laugh":
        sheet.pen.chord([_px(x - r * 0.3), _px(y - r * 0.28), _px(x + r * 0.3), _px(y + r * 0.26)], 0, 180, fill=INK)
        sheet.disc(x, y + r * 0.14, r * 0.15, r * 0.08, fill="#ff6b6b")
    elif kind == "round":
        sheet.disc(x, y, r * 0.1, r * 0.12, fill=INK)
    else:
        wide = 0.26 if kind == "smile" else 0.12
        _arc(sheet, x, y - r * 0.06, r * wide, r * wide * 0.6, up=False, width=r * 0.07)


def _arc(sheet: Sheet, x: float, y: float, rx: float, ry: float, *, up: bool, width: float) -> None:
    sign = -1 if up else 1
    turns = [math.pi * i / 24 for i in range(25)]
    sheet.stroke([(x - rx * math.cos(t), y + sign * ry * math.sin(t)) for t in turns], width, INK)


def _scarf(sheet: Sheet, pose: Pose) -> None:
    x, y, r = pose.x, pose.y, pose.radius
    sheet.shape(
        [
            (x + r * 0.34, y + r * 0.76),
            (x + r * 0.64, y + r * 0.7),
            (x + r * 0.78, y + r * 1.24),
            (x + r * 0.44, y + r * 1.28),
        ],
        "#b31f30",
    )
    band = [
        (x + r * 0.9 * math.sin(t), y + r * (0.46 + 0.4 * math.cos(t)))
        for t in (math.pi * (i / 40 - 0.5) for i in range(41))
    ]
    sheet.stroke(band, r * 0.25, "#d7263d")
    sheet.stroke([(px, py - r * 0.05) for px, py in band[2:-2]], r * 0.06, "#f0616f")
    sheet.disc(x + r * 0.48, y + r * 0.8, r * 0.17, r * 0.17, fill="#c01f35")


def _hat(sheet: Sheet, pose: Pose) -> None:
    x, y, r = pose.x - pose.radius * 0.42, pose.y - pose.radius * 0.78, pose.radius
    sheet.shape([(x - r * 0.38, y + r * 0.14), (x + r * 0.34, y - r * 0.12), (x - r * 0.3, y - r * 0.82)], "#7b4bd1")
    sheet.stroke([(x - r * 0.36, y + r * 0.12), (x + r * 0.32, y - r * 0.1)], r * 0.12, YELLOW)
    sheet.disc(x - r * 0.3, y - r * 0.82, r * 0.13, r * 0.13, fill=YELLOW)


def _balloon(sheet: Sheet, pose: Pose) -> None:
    angle = math.radians(pose.hands[1])
    hand = (pose.x + math.cos(angle) * pose.radius * 1.28, pose.y - math.sin(angle) * pose.radius * 1.28)
    sheet.stroke([hand, (hand[0] + 3, hand[1] - 9), (hand[0] + 5, 33)], 0.8, "#6b7b80")
    x, y = hand[0] + 5, 20
    sheet.shape([(x - 2, y + 15), (x + 2, y + 15), (x, y + 11)], "#b91d33")
    sheet.disc(x, y, 11.5, 13, fill="#c9233b")
    sheet.disc(x - 0.7, y - 0.7, 10.4, 11.8, fill="#e8364f")
    sheet.disc(x - 4, y - 5, 2.6, 3.4, fill="#ffa0ab")


def _sleepy(sheet: Sheet, pose: Pose) -> None:
    for x, y, size in ((74, 24, 5), (83, 15, 6.5), (91, 4, 7.5)):
        corners = [(x - size / 2, y), (x + size / 2, y), (x - size / 2, y + size), (x + size / 2, y + size)]
        sheet.stroke(corners, 1.5, "#5b7fd1")


def _flower(sheet: Sheet, pose: Pose) -> None:
    for x, y, colour in ((12, 84, "#ff7eb6"), (86, 88, "#ffffff"), (80, 74, "#ffe15a"), (22, 95, "#ffffff")):
        for i in range(5):
            turn = math.tau * i / 5
            sheet.disc(x + 2.2 * math.cos(turn), y + 2.2 * math.sin(turn), 1.6, 1.6, fill=colour)
        sheet.disc(x, y, 1.4, 1.4, fill="#f29f05")


def _meadow(sheet: Sheet) -> None:
    sheet.pen.rectangle([0, 0, INNER, INNER], fill="#bfe8ff")
    sheet.disc(82, 16, 9, 9, fill="#ffe066")
    sheet.disc(20, 95, 70, 32, fill="#8fd15f")
    sheet.disc(80, 104, 75, 34, fill="#6cbd45")


def _night(sheet: Sheet) -> None:
    sheet.pen.rectangle([0, 0, INNER, INNER], fill="#243b7a")
    sheet.disc(20, 20, 10, 10, fill="#fff1b8")
    sheet.disc(25, 17, 9, 9, fill="#243b7a")
    for x, y, r in (
        (45, 8, 1),
        (68, 12, 1.4),
        (88, 24, 1.1),
        (8, 46, 1.1),
        (80, 42, 0.9),
        (92, 8, 0.9),
        (12, 66, 0.8),
        (91, 60, 1.2),
    ):
        sheet.shape([(x, y - 2.4 * r), (x + r, y), (x, y + 2.4 * r), (x - r, y)], "#fff7d6")
        sheet.shape([(x - 2.4 * r, y), (x, y + r), (x + 2.4 * r, y), (x, y - r)], "#fff7d6")
    sheet.disc(50, 115, 85, 32, fill="#3f5aa8")


def _beach(sheet: Sheet) -> None:
    sheet.pen.rectangle([0, 0, INNER, INNER], fill="#cfeeff")
    sheet.pen.rectangle([0, _px(52), INNER, INNER], fill="#4aa8e0")
    sheet.disc(50, 118, 95, 46, fill="#f6dfa4")
    sheet.disc(84, 16, 8, 8, fill="#ffdc5e")
    sheet.stroke([(81, 74), (85, 36)], 1.2, "#b0793a")
    sheet.pen.pieslice([_px(69), _px(30), _px(100), _px(58)], 180, 360, fill="#ff5d5d")
    sheet.pen.pieslice([_px(79), _px(30), _px(90), _px(58)], 180, 360, fill="#ffffff")


SCENES = {"meadow": _meadow, "night": _night, "beach": _beach}
BEHIND = {"balloon": _balloon, "flower": _flower}
BEFORE = {"scarf": _scarf, "hat": _hat, "sleepy": _sleepy}


if __name__ == "__main__":
    draw_all(HERE / "mascot")
