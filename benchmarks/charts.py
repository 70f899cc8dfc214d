"""Draw bar charts as SVG, legible on light and dark pages, without dependencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from benchmarks.model import Series, cases_of

_WIDTH = 800
_LEFT = 250
_RIGHT = 130
_ROW = 20
_GAP = 30
_TOP = 62
_LOG_ABOVE = 30.0
"""The scale is logarithmic if the longest bar is more than this many times the shortest."""

_STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de; } text { fill: #1f2328; font: 12px system-ui, sans-serif; }
  .title { font-size: 15px; font-weight: 600; } .dim { fill: #59636e; } .case { font-weight: 600; }
  .own { fill: #2563eb; } .other { fill: #9aa4b0; } .range { stroke: #1f2328; stroke-width: 1.2; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d; } text { fill: #f0f6fc; } .dim { fill: #9198a1; }
    .own { fill: #4c8dff; } .other { fill: #656c76; } .range { stroke: #f0f6fc; }
  }
"""


class Scale(NamedTuple):
    """Map figures to lengths in pixels."""

    low: float
    high: float
    logarithmic: bool

    def length(self, value: float) -> float:
        """Return the length of a figure's bar."""
        room = _WIDTH - _LEFT - _RIGHT
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return max(1.0, min(1.0, share) * room)


def scale_for(values: Sequence[float]) -> Scale:
    """Choose a scale: linear from zero, or logarithmic if the figures are far apart."""
    positive = [value for value in values if value > 0]
    if not positive:
        return Scale(0.0, 1.0, False)
    high, low = max(positive), min(positive)
    if high / low <= _LOG_ABOVE:
        return Scale(0.0, high, False)
    return Scale(10.0 ** math.floor(math.log10(low) - 0.05), high, True)


def short(value: float) -> str:
    """Format a figure with three significant digits and thousands separators."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    return f"{rounded:,.{digits}f}"


def bar_chart(title: str, subtitle: str, series: Sequence[Series], own: str) -> str:
    """Return an SVG: one group of bars per case, medians as bars, ranges as whiskers.

    ``own`` is the prefix of the rivals to highlight. A rival that was not measured has a note instead of a
    bar.
    """
    values = [value for one in series for value in one.samples]
    scale = scale_for(values)
    body: list[str] = []
    y = _TOP
    for case in cases_of(series):
        body.append(f'<text class="case" x="16" y="{y + 13}">{escape(case)}</text>')
        y += _ROW
        for one in series:
            if one.case == case:
                body += _bar(one, y, scale, "own" if one.rival.startswith(own) else "other")
                y += _ROW
        y += _GAP - _ROW
    note = subtitle + (" · logarithmic scale" if scale.logarithmic else "")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" '
            f'width="{_WIDTH}" height="{y}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{y - 1}" rx="8"/>',
            f'<text class="title" x="16" y="28">{escape(title)}</text>',
            f'<text class="dim" x="16" y="47">{escape(note)}</text>',
            *body,
            "</svg>",
            "",
        ]
    )


def _bar(one: Series, y: int, scale: Scale, kind: str) -> list[str]:
    label = f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(one.rival)}</text>'
    if not one.measured:
        return [label, f'<text class="dim" x="{_LEFT}" y="{y + 13}">{escape(one.note[:60])}</text>']
    length = scale.length(one.median)
    low, high = scale.length(one.low), scale.length(one.high)
    middle = y + 9
    return [
        label,
        f'<rect class="{kind}" x="{_LEFT}" y="{y + 3}" width="{length:.1f}" height="12" rx="2"/>',
        f'<path class="range" d="M{_LEFT + low:.1f} {middle}H{_LEFT + high:.1f}"/>',
        f'<text x="{_LEFT + max(length, high) + 8:.1f}" y="{y + 13}">{short(one.median)}</text>',
    ]
