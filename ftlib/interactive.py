"""The few pictures that move: plotly figures that work offline, from a file on disk."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from IPython.display import HTML

from ftlib.figures import COLOURS
from ftlib.metrics import Curve

GREY = "#666666"


def gamma_slider(curve: Curve, marks: Mapping[str, float], steps: int = 81) -> go.Figure:
    """The exact seen-unseen curve with a slider for γ that moves a point along it and reads out the accuracies.

    Parameters
    ----------
    curve : Curve
    marks : mapping
        Names of γ that the reader should find on the curve, such as 0 and γ*. The slider's range covers them.
    steps : int
        Stops of the slider.
    """
    reach = max(1.0, 1.6 * max(abs(gamma) for gamma in marks.values()))
    stops = np.union1d(np.linspace(-reach / 3, reach, steps), list(marks.values()))
    start = int(np.abs(stops).argmin())

    def readout(gamma: float) -> str:
        point = curve.at(gamma)
        return (
            f"γ = {gamma:.2f}   <span style='color:{COLOURS['seen']}'>seen {point.sy:.1%}</span>   "
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
    figure.update_layout(
        title={"text": readout(stops[start]), "font": {"size": 15}, "x": 0.02},
        sliders=[
            {
                "active": start,
                "currentvalue": {"visible": False},
                "pad": {"t": 45},
                "steps": [
                    {
                        "label": f"{gamma:.1f}",
                        "method": "update",
                        "args": [{"x": [[p.sy]], "y": [[p.uy]]}, {"title.text": readout(gamma)}, [2]],
                    }
                    for gamma, p in ((gamma, curve.at(gamma)) for gamma in stops)
                ],
            }
        ],
        xaxis={
            "title": "seen accuracy",
            "range": [-0.02, 1.02],
            "tickformat": ".0%",
            "gridcolor": "rgba(128,128,128,.25)",
        },
        yaxis={
            "title": "absent accuracy",
            "range": [-0.02, 1.02],
            "tickformat": ".0%",
            "gridcolor": "rgba(128,128,128,.25)",
        },
        font={"color": GREY},
        paper_bgcolor="white",  # on dark pages a light card, as all figures are
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        height=480,
        margin={"l": 60, "r": 20, "t": 60, "b": 40},
    )
    return figure


def offline(figure: go.Figure, name: str) -> HTML:
    """The figure for a page of the book, which has plotly's script itself; in a live notebook use ``figure.show()``."""
    return HTML(
        figure.to_html(
            full_html=False,
            include_plotlyjs="../_static/plotly.min.js",
            include_mathjax=False,
            div_id=name,
            config={"displayModeBar": False, "responsive": True},
        )
    )
