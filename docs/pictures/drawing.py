"""A few shapes for the pictures of the documentation, in colours that are legible on light and dark pages."""

from __future__ import annotations

from html import escape

_LIGHT = {
    "page": "#ffffff",
    "edge": "#d0d7de",
    "text": "#1f2328",
    "soft": "#59636e",
    "line": "#59636e",
    "plain": ("#f6f8fa", "#818b98"),
    "log": ("#ddf4ff", "#0969da"),
    "work": ("#dafbe1", "#1a7f37"),
    "wait": ("#fff8c5", "#9a6700"),
    "dead": ("#ffebe9", "#cf222e"),
}
_DARK = {
    "page": "#0d1117",
    "edge": "#3d444d",
    "text": "#f0f6fc",
    "soft": "#9198a1",
    "line": "#9198a1",
    "plain": ("#212830", "#9198a1"),
    "log": ("#0c2d6b", "#58a6ff"),
    "work": ("#04260f", "#3fb950"),
    "wait": ("#341a00", "#d29922"),
    "dead": ("#3c0614", "#f85149"),
}
KINDS = ("plain", "log", "work", "wait", "dead")
_STEP_SECONDS = 1.2
_FONT = "system-ui,-apple-system,'Segoe UI','Noto Sans KR','Apple SD Gothic Neo','Malgun Gothic',sans-serif"


def palette_css(*, dark: bool) -> str:
    """Return the colours of one theme as CSS."""
    colours = _DARK if dark else _LIGHT
    rules = [
        f".page{{fill:{colours['page']};stroke:{colours['edge']}}}",
        f"text{{fill:{colours['text']}}}",
        f".soft{{fill:{colours['soft']}}}",
        f".line{{stroke:{colours['line']};fill:none}}",
        f".tip{{fill:{colours['line']}}}",
    ]
    for kind in KINDS:
        fill, stroke = colours[kind]
        rules.append(f".{kind}{{fill:{fill};stroke:{stroke}}}")
    return "".join(rules)


Box = tuple[float, float, float, float]
"""Left, top, width, height."""


class Drawing:
    """Collect shapes; ``svg()`` gives the picture. Coordinates are pixels, text is centred on them."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width = width
        self._height = height
        self._title = title
        self._shapes: list[str] = []
        self._steps = 0

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *lines: str,
        kind: str = "plain",
    ) -> Box:
        """Draw a box with centred lines, the first bold, the others small; return its place for ``walk``."""
        self._shapes.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
        )
        step = 17
        top = y + height / 2 - step * (len(lines) - 1) / 2 + 5
        for number, line in enumerate(lines):
            style = "bold" if number == 0 else "small"
            self.text(x + width / 2, top + number * step, line, style=style)
        return x, y, width, height

    def frame(self, x: float, y: float, width: float, height: float, label: str) -> None:
        """Draw a dashed frame around things that belong together, its label at the top left."""
        self._shapes.append(
            f'<rect class="line dash" x="{x}" y="{y}" width="{width}" height="{height}" rx="12"/>'
        )
        self.text(x + 14, y + 21, label, style="small soft", anchor="start")

    def text(self, x: float, y: float, text: str, *, style: str = "small", anchor: str = "middle") -> None:
        """Write a line of text; ``style`` is any of small, bold, code, soft."""
        self._shapes.append(
            f'<text class="{style}" x="{x}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def arrow(
        self, *points: tuple[float, float], label: str = "", at: tuple[float, float] | None = None
    ) -> None:
        """Draw an arrow along points; ``at`` is where its label goes."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self._shapes.append(f'<path class="line" d="{path}" marker-end="url(#tip)"/>')
        if label and at:
            self.text(*at, label, style="small soft")

    def walk(self, *boxes: Box) -> None:
        """Light boxes up one after the other, over and over.

        It is all in the style: where nothing moves, or the reader asked for that, the picture stands still.
        """
        self._steps = len(boxes)
        for number, (x, y, width, height) in enumerate(boxes):
            self._shapes.append(
                f'<rect class="lit" style="animation-delay:{number * _STEP_SECONDS:g}s" '
                f'x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
            )

    def _walking_css(self) -> str:
        if not self._steps:
            return ""
        share = 100 / self._steps
        return (
            ".lit{fill:none;stroke:#bf3989;stroke-width:4;opacity:0}"
            f"@keyframes lit{{0%{{opacity:0}}{share * 0.15:.2f}%,{share * 0.85:.2f}%{{opacity:1}}"
            f"{share * 1.15:.2f}%,100%{{opacity:0}}}}"
            "@media (prefers-reduced-motion:no-preference){"
            f".lit{{animation:lit {self._steps * _STEP_SECONDS:g}s linear infinite}}}}"
        )

    def svg(self) -> str:
        """Return the picture. Its own page lies behind it, so no theme of the site makes it illegible."""
        dark = palette_css(dark=True)
        style = (
            f"text{{font:13px {_FONT}}}.bold{{font-weight:600}}.small{{font-size:12px}}"
            ".code{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:12px}"
            "rect,path{stroke-width:1.4}.dash{stroke-dasharray:5 4}"
            f"{palette_css(dark=False)}@media (prefers-color-scheme:dark){{{dark}}}"
            f"{self._walking_css()}"
        )
        body = "\n".join(self._shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._width} {self._height}" '
            f'width="{self._width}" height="{self._height}" role="img" aria-label="{escape(self._title)}">\n'
            f"<title>{escape(self._title)}</title>\n<style>{style}</style>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto-start-reverse"><path class="tip" style="stroke:none" d="M0 0.5 L8 4 L0 7.5 z"/>'
            "</marker></defs>\n"
            f'<rect class="page" x="0.7" y="0.7" width="{self._width - 1.4}" '
            f'height="{self._height - 1.4}" rx="12"/>\n'
            f"{body}\n</svg>\n"
        )
