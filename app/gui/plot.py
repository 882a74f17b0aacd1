"""The loss of a run as a drawing: SVG of our own, so that it needs no width, no script, and follows the theme."""

import math
from collections.abc import Sequence
from itertools import pairwise

from app.gui.markup import text
from trainers.events import RunState

Points = Sequence[tuple[float, float]]  # (step, loss)

WIDTH, HEIGHT = 720, 280  # of the drawing's own coordinates; it is stretched to the room there is
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 26
MOST = 480  # points of a line
SHARE = 12  # the smoothed loss looks back over a twelfth of the run
SHOWN = 0.98  # share of a line that the axis has room for: one outlier must not flatten the rest
FEW = 20  # points of which all are shown
DOT = 3  # radius of a held-out loss


def loss_plot(state: RunState) -> str:
    """Loss by step: each report faint, smoothed, the held-out loss dashed, checkpoints as ticks. "" without losses."""
    losses = thinned(state.losses)
    if len(state.losses) < 2:
        return ""
    smooth = smoothed(state.losses, max(state.steps, state.step) / SHARE)
    left, right = state.losses[0][0], max(state.losses[-1][0], state.losses[0][0] + 1)
    low, high = _range(losses, smooth, state.validation)
    across, up = ticks(left, right, 6), ticks(low, high, 6)

    def x(step: float) -> float:
        return LEFT + (step - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(loss: float) -> float:
        return HEIGHT - BOTTOM - (loss - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(points: Points, kind: str) -> str:
        path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points)
        return f'<polyline class="{kind}" points="{path}"/>'

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(at):.1f}" y2="{y(at):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y(at) + 4:.1f}" text-anchor="end">{number(at, up)}</text>'
        for at in up
    )
    feet = "".join(
        f'<text x="{x(at):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{at:,.0f}</text>' for at in across
    )
    dots = "".join(
        f'<circle class="held" cx="{x(step):.1f}" cy="{y(loss):.1f}" r="{DOT}">'
        f"<title>Held-out loss {loss:.4f} at step {step:,}</title></circle>"
        for step, loss in state.validation[-60:]
    )
    floor = HEIGHT - BOTTOM
    kept = sorted({checkpoint.step for checkpoint in state.checkpoints if left <= checkpoint.step <= right})
    saved = "".join(
        f'<path class="saved" d="M{x(at):.1f},{floor - 7} l5,7 h-10 z"><title>Checkpoint at step {at:,}</title></path>'
        for at in kept
    )
    wide, high_up = WIDTH - LEFT - RIGHT + 2 * DOT, floor - TOP + DOT  # a dot at the last step is whole
    inside = f'<rect x="{LEFT - DOT}" y="{TOP - DOT}" width="{wide}" height="{high_up}"/>'
    lines = line(losses, "raw") + line(smooth, "smooth") + line(state.validation, "held") + dots
    title, told = "Loss by step", description(state, smooth)
    return f"""<figure class="dr-plot">
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="dr-plot-title dr-plot-told">
<title id="dr-plot-title">{title}</title><desc id="dr-plot-told">{text(told)}</desc>
<clipPath id="dr-plot-inside">{inside}</clipPath>
{grid}<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>{feet}
<text x="2" y="{floor + 18}">step</text>
<g clip-path="url(#dr-plot-inside)">{lines}</g>
{saved}</svg>
{_legend(bool(state.validation), bool(saved))}
</figure>"""


def description(state: RunState, smooth: Points) -> str:
    """The drawing in a sentence, for those who do not see it."""
    ends = f"Smoothed, the loss is {smooth[-1][1]:.4f} at step {state.losses[-1][0]:,}; it began at {smooth[0][1]:.4f}."
    if state.validation:
        step, loss = state.validation[-1]
        ends += f" The loss of the held-out pictures is {loss:.4f} at step {step:,}."
    return ends


def thinned(points: Points, most: int = MOST) -> list[tuple[float, float]]:
    """At most `most` points: the smallest and the largest of each stretch, in order."""
    if len(points) <= most:
        return list(points)
    found = []
    for part in _parts(points, most // 2):
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        found += sorted(ends)
    return found


def smoothed(points: Points, span: float, most: int = MOST) -> list[tuple[float, float]]:
    """The exponential mean that forgets over `span` steps, corrected for its start as Adam's means are [Kingma 2015].

    Long series are first averaged in stretches: the mean over many of them would not show the difference.
    """
    if len(points) > most:
        points = [(part[-1][0], math.fsum(loss for _, loss in part) / len(part)) for part in _parts(points, most)]
    found, total, weight, before = [], 0.0, 0.0, None
    gap = min((b[0] - a[0] for a, b in pairwise(points) if b[0] > a[0]), default=1)
    for step, loss in points:
        since = max(0, step - before) if before is not None else gap  # a damaged log may go back
        kept = math.exp(-since / max(span, 1))
        total, weight = kept * total + (1 - kept) * loss, kept * weight + (1 - kept)
        found.append((step, total / weight if weight else loss))
        before = step
    return found


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float, among: Sequence[float]) -> str:
    """With as many decimals as tell `among` apart."""
    gap = min((abs(b - a) for a, b in pairwise(among)), default=abs(value) or 1)
    return f"{value:.{max(0, -math.floor(math.log10(gap) + 1e-9))}f}"


def _parts(points: Points, count: int) -> list[Points]:
    edges = [round(i * len(points) / count) for i in range(count + 1)]
    return [points[begin:end] for begin, end in pairwise(edges) if end > begin]


def _range(*lines: Points) -> tuple[float, float]:
    """Of the axis: room for nearly all of each line."""
    inner = []
    for losses in lines:
        ordered = sorted(loss for _, loss in losses)
        cut = math.ceil(len(ordered) * (1 - SHOWN)) if len(ordered) > FEW else 0
        inner += ordered[cut : len(ordered) - cut]
    low, high = min(inner), max(inner)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return max(0.0, low - room) if low >= 0 else low - room, high + room


def _legend(held: bool, saved: bool) -> str:
    entries = [("smooth", "Loss, smoothed"), ("raw", "Each report")]
    entries += [("held", "Held-out pictures")] * held + [("saved", "Checkpoint")] * saved
    spans = "".join(f'<span class="{kind}">{words}</span>' for kind, words in entries)
    return f"<figcaption>{spans}</figcaption>"
