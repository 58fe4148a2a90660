"""The few pictures that move: plotly figures that work offline, from a file on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from IPython.display import HTML

from ftlib.book.estimates import number
from ftlib.book.figures import COLOURS
from ftlib.book.figures.plane import CLASS_COLOURS, INK, TINTS
from ftlib.metrics import Curve

GREY = "#666666"


def gamma_slider(curve: Curve, marks: Mapping[str, float]) -> go.Figure:
    """The exact seen-unseen curve with a slider for γ that moves a point along it and reads out the accuracies.

    Parameters
    ----------
    curve : Curve
    marks : mapping
        Names of γ that the reader should find on the curve, such as 0 and γ*: each is a stop of the slider.
    """
    reach = max(1.0, 1.6 * max(abs(gamma) for gamma in marks.values()))
    stops = np.union1d(np.linspace(-reach / 3, reach, 81), list(marks.values()))
    start = int(np.abs(stops).argmin())

    def readout(gamma: float) -> str:
        point = curve.at(gamma)
        return (
            f"γ = {number(gamma, '.2f')}   <span style='color:{COLOURS['seen']}'>seen {point.sy:.1%}</span>   "
            f"<span style='color:{COLOURS['absent']}'>absent {point.uy:.1%}</span>   all {point.yy:.1%}"
        )

    # The curve of a few thousand images has as many knots; a few hundred of them draw the same line.
    thin = np.unique(np.linspace(0, len(curve.sy) - 1, 400).round().astype(int))
    figure = go.Figure(
        [
            go.Scatter(
                x=curve.sy[thin].round(4), y=curve.uy[thin].round(4), mode="lines", hoverinfo="skip",
                line={"color": COLOURS["fine-tuned"], "width": 3},
            ),
            go.Scatter(
                x=[curve.at(g).sy for g in marks.values()], y=[curve.at(g).uy for g in marks.values()],
                text=list(marks), mode="markers+text", textposition="bottom left", hoverinfo="text",
                marker={"size": 9, "color": GREY},
            ),
            go.Scatter(
                x=[curve.at(stops[start]).sy], y=[curve.at(stops[start]).uy], mode="markers", hoverinfo="skip",
                marker={"size": 16, "color": COLOURS["absent"], "line": {"color": "white", "width": 2}},
            ),
        ]
    )  # fmt: skip
    percents = {"range": [-0.06, 1.04], "tickformat": ".0%", "gridcolor": "rgba(128,128,128,.25)"}
    points = {gamma: curve.at(gamma) for gamma in stops}
    moves = [(number(gamma), {"x": [[p.sy]], "y": [[p.uy]]}, readout(gamma)) for gamma, p in points.items()]
    _add_slider(figure, moves, start, trace=2, size=15, pad=45, name="γ, added to the logits of the absent classes")
    figure.update_layout(
        xaxis={"title": "seen accuracy", **percents}, yaxis={"title": "absent accuracy", **percents},
        paper_bgcolor="white", plot_bgcolor="rgba(0,0,0,0)",  # on dark pages a light card, as all figures are
        height=480, margin={"l": 60, "r": 20, "t": 60, "b": 40},
    )  # fmt: skip
    return figure


def offline(figure: go.Figure, name: str, label: str = "") -> HTML:
    """The figure for a page of the book, which has plotly's script itself; in a live notebook use ``figure.show()``.

    Its slider becomes the page's own: a range input with a label, which keys move and whose readout is read aloud.

    Parameters
    ----------
    figure : go.Figure
        With one slider, as `gamma_slider` and `region_slider` make it.
    name : str
        The id of its element on the page.
    label : str, default the figure's own
        What the slider moves, for those who cannot see it.
    """
    layout: Any = figure.layout  # plotly makes its properties when it is imported, and no type checker sees them
    (control,) = layout.sliders
    label = label or control.name or "stop"
    stops = [[step.args[0], step.args[1]["title.text"], step.args[2]] for step in control.steps]
    data = json.dumps(stops, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    start = control.active or 0
    bare = go.Figure(figure).update_layout(title=None, height=layout.height - 80, margin={"t": 10})
    bare.layout.sliders = ()  # pyright: ignore[reportAttributeAccessIssue]  an update would leave the old one in place
    how: Any = {"full_html": False, "include_mathjax": False, "config": {"displayModeBar": False, "responsive": True}}
    picture = bare.to_html(include_plotlyjs="../_static/plotly.min.js", div_id=name, **how)
    said = re.sub(r"<[^>]+>", " ", stops[start][1])
    return HTML(
        f'<div class="moving" style="background:#fff;color:#333;padding:.6rem;border-radius:4px">'
        f'<output id="{name}-told" for="{name}-stop" aria-live="polite" '
        f'style="display:block;min-height:3em;font-size:1.2rem;font-weight:700;line-height:1.4">{stops[start][1]}</output>'
        f'<div role="img" aria-label="{escape(label)}: the picture follows the slider below it">{picture}</div>'
        f'<label style="display:block">{escape(label)} <input type="range" id="{name}-stop" min="0" '
        f'max="{len(stops) - 1}" value="{start}" aria-valuetext="{escape(said)}" style="width:100%"></label>'
        f"<script>(() => {{const stops={data}, range=document.getElementById('{name}-stop'),"
        f"told=document.getElementById('{name}-told');range.addEventListener('input',()=>{{"
        f"const [moved,text,traces]=stops[range.value];Plotly.restyle('{name}',moved,traces);"
        "told.innerHTML=text;range.setAttribute('aria-valuetext',told.textContent)})})()</script></div>"
    )


def region_slider(
    frames: Mapping[str, tuple[np.ndarray, str]],
    box: tuple[float, float, float, float],
    points: np.ndarray,
    labels: np.ndarray,
    hollow: Sequence[int] = (),
    start: int = 0,
) -> go.Figure:
    """The toy's plane with a slider: the class that wins at each place, under points that stay where they are.

    Parameters
    ----------
    frames : mapping from a stop's label to the winning class [rows, columns], 0 to 3, bottom row first, and a readout.
        Each cell of each stop is a digit of the page: 60 columns and 20 stops are about 0.1 MB.
    box : left, right, bottom and top of the cells.
    points, labels : [N, 2] and int [N]
    hollow : sequence of int
        Classes whose points are outlines.
    start : int
        The stop that is shown first.
    """
    if not frames or not 0 <= start < len(frames):
        raise ValueError(f"start {start} of {len(frames)} frames: expected one of at least one frame")
    shown, _ = list(frames.values())[start]
    x, y = (np.linspace(*ends, 2 * n + 1)[1::2] for ends, n in ((box[:2], shown.shape[1]), (box[2:], shown.shape[0])))
    steps = [edge for c, tint in enumerate(TINTS) for edge in ([c / 4, tint], [(c + 1) / 4, tint])]
    plane = go.Heatmap(
        x=x.round(3), y=y.round(3), z=shown.tolist(), zmin=-0.5, zmax=3.5, colorscale=steps, showscale=False,
        hoverinfo="skip",
    )  # fmt: skip
    figure = go.Figure(plane)
    for c, colour in enumerate(CLASS_COLOURS):
        own = points[labels == c]
        symbol, edge = ("circle-open", {"width": 1.4}) if c in hollow else ("circle", {"width": 0.5, "color": "white"})
        figure.add_scatter(
            x=own[:, 0].round(2), y=own[:, 1].round(2), mode="markers", hoverinfo="skip",
            marker={"size": 7, "color": colour, "symbol": symbol, "line": edge},
        )  # fmt: skip
        figure.add_annotation(
            x=float(own[:, 0].mean()), y=float(own[:, 1].mean()), text=f"<b>{'ABCD'[c]}</b>", showarrow=False,
            font={"color": INK, "size": 13}, bgcolor="white", bordercolor=colour, borderpad=2,
        )  # fmt: skip
    moves = [(label, {"z": [cells.tolist()]}, text) for label, (cells, text) in frames.items()]
    _add_slider(figure, moves, start, trace=0, size=14, pad=15)
    hidden = {"visible": False, "fixedrange": True}
    figure.update_layout(
        xaxis={**hidden, "range": box[:2], "constrain": "domain"},
        yaxis={**hidden, "range": box[2:], "scaleanchor": "x", "constrain": "domain"},
        paper_bgcolor="white", plot_bgcolor="white", height=500, margin={"l": 10, "r": 10, "t": 70, "b": 20},
    )  # fmt: skip
    return figure


def _add_slider(
    figure: go.Figure, moves: Sequence[tuple[str, dict, str]], start: int, trace: int, size: int, pad: int, **named: str
) -> None:
    """A slider of moves, each a label, what changes of one trace, and the readout, which is the figure's title."""
    stops = [
        {"label": label, "method": "update", "args": [changes, {"title.text": text}, [trace]]}
        for label, changes, text in moves
    ]
    slider = {"active": start, "currentvalue": {"visible": False}, "pad": {"t": pad}, "steps": stops}
    title = {"text": moves[start][2], "font": {"size": size}, "x": 0.02}
    figure.update_layout(title=title, sliders=[slider | named], font={"color": GREY}, showlegend=False)
