"""The race as a picture: every peer's time over ours, a panel for each batch and thread count."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from striate.pictures.figures import BLUE, GREEN, ORANGE, PINK, encoded, look
from striate.race.engines import OURS
from striate.race.heats import Heat
from striate.race.report import Results, course_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"))
_COLUMNS = 2


def draw(results: Results, suffix: str) -> bytes:
    """The picture as the bytes of a file with `suffix`; the same for the same results."""
    with look():
        return encoded(_figure(results), suffix)


def _figure(results: Results) -> "Figure":
    from matplotlib.figure import Figure

    courses = results.courses()
    columns = min(_COLUMNS, len(courses))
    rows = -(-len(courses) // columns)
    networks = max(len(results.on(*course)) for course in courses)
    size = (1.6 + 4.0 * columns, 0.9 + rows * (0.9 + 0.24 * networks))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = [panel for row in grid for panel in row]
    peers = [name for name in results.versions if name != OURS]
    for panel, course in zip(panels, courses, strict=False):
        _panel(panel, results.on(*course), peers)
        panel.set_title(course_title(*course), fontsize=10)
    for panel in panels[len(courses) :]:
        panel.remove()
    figure.supxlabel("time over Striate's (right of the line: slower)", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def _panel(panel: "Axes", heats: Sequence[Heat], peers: Sequence[str]) -> None:
    """A row for each network, a mark for each peer, and a line where Striate is."""
    panel.axvline(1.0, color="black", linewidth=1.2, label=OURS)
    for number, name in enumerate(peers):
        colour, shape = _STYLES[number % len(_STYLES)]
        lanes = [next(lane for lane in heat.lanes if lane.engine == name) for heat in heats]
        times = [
            lane.seconds / heat.ours.seconds if lane.counts else math.nan
            for heat, lane in zip(heats, lanes, strict=True)
        ]
        panel.plot(times, range(len(heats)), shape, color=colour, label=name, markersize=5)
    panel.set_yticks(range(len(heats)), [heat.case.network for heat in heats])
    panel.set_ylim(len(heats) - 0.5, -0.5)
    panel.set_xlim(left=0.0)
    panel.grid(color="0.92")
    panel.tick_params(length=0)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
