"""Reports as one HTML file each: no scripts, no other files, light and dark, wide and narrow.

Every function returns :class:`Html`; every plain string on the way in is escaped, so that a file
name or a model's description cannot become markup.

Example:
    >>> body = section("Figures", table(["class", "IoU"], [["water <1>", "0.93"]]))
    >>> "water &lt;1&gt;" in page("Test", body)
    True
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .image_files import encode_image

if TYPE_CHECKING:
    from .frame import Image

Rgb: TypeAlias = tuple[int, int, int]


class Html(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


Content: TypeAlias = str | int | float | Html
"""What may stand in an element; numbers are written as they are, strings are escaped."""

_VOID = frozenset({"img", "meta", "br"})

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #ffffff; --ink: #1b1f24;
  --soft: #5d6670; --line: #e3e4e0; --accent: #0b6e99; --second: #c9861a; --wrong: #d64541; }
@media (prefers-color-scheme: dark) { :root { --paper: #13161a; --card: #1b1f25; --ink: #e8eaed;
  --soft: #98a2ad; --line: #2d333b; --accent: #59b4dd; --second: #e2ab52; --wrong: #ef6f6c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 4vw, 2.5rem); line-height: 1.15; letter-spacing: -0.02em;
  margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; letter-spacing: -0.01em; margin: 0 0 .9rem; }
p { margin: 0 0 .9rem; } .card + p { margin-top: .8rem; color: var(--soft); }
p.lead { color: var(--soft); max-width: 62ch; font-size: 1.05rem; }
section { margin-top: 2.6rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .9rem;
  margin-top: 1.6rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .9rem 1.1rem; }
.tile b { display: block; font-size: 1.9rem; font-weight: 650; letter-spacing: -0.02em;
  line-height: 1.15; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .88rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.1rem 1.2rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .88rem; }
tr:last-child td { border-bottom: 0; }
tbody tr.total td { font-weight: 650; }
.swatch { display: inline-block; width: .85em; height: .85em; border-radius: 3px;
  margin-right: .5em; vertical-align: -0.06em; border: 1px solid rgb(128 128 128 / .4); }
.legend { display: flex; flex-wrap: wrap; gap: .35rem 1.2rem; color: var(--soft);
  font-size: .9rem; margin-bottom: .9rem; }
.bar { display: inline-block; width: 84px; height: .55em; border-radius: 3px; margin-left: .7em;
  background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
.sheet { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 6px; }
.sheet .head { color: var(--soft); font-size: .88rem; padding-bottom: .1rem; }
.sheet figure { margin: 0; position: relative; }
.sheet img { display: block; width: 100%; height: auto; border-radius: 6px; }
.sheet figcaption { position: absolute; left: 6px; bottom: 6px; font-size: .78rem; color: #fff;
  background: rgb(0 0 0 / .62); border-radius: 4px; padding: 0 .45em;
  font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; }
svg .grid { stroke: var(--line); } svg .line { fill: none; stroke-width: 2; }
svg .s0 { stroke: var(--accent); } svg .s1 { stroke: var(--second); stroke-width: 1.4; }
.stack { display: flex; height: 1.5rem; border-radius: 6px; overflow: hidden; gap: 2px; }
.stack i { display: block; }
.k0 { background: var(--accent); } .k1 { background: var(--second); } .k2 { background: #7a6fb0; }
.k3 { background: #4f9d69; } .k4 { background: #b06f8c; } .k5 { background: #8a8f98; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.4rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.notice { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  border-left: 4px solid var(--wrong); padding: .8rem 1.2rem; margin-top: 1.4rem; max-width: 78ch; }
.notice.good { border-left-color: var(--accent); } .notice p:last-child { margin: 0; }
.shade { display: inline-block; min-width: 4.6em; padding: .12em .5em; border-radius: 5px; }
.lost { color: var(--wrong); font-weight: 650; }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 620px) { main { padding: 1.6rem .9rem 3rem; } .bar { display: none; }
  .sheet { grid-template-columns: repeat(2, 1fr); } .sheet .head { display: none; }
  .of5 figure:nth-of-type(5n+1) { grid-column: 1 / -1; }
  th, td { padding: .4rem .4rem; font-size: .92rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .55rem; } svg text { font-size: 24px; } }
@media print { .card, .tile { break-inside: avoid; } }
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot.

    Attributes:
        name: For the legend.
        values: One per position on the x axis; None leaves a gap.
    """

    name: str
    values: Sequence[float | None]


def element(tag: str, *children: Content, **attributes: Content) -> Html:
    """Builds ``<tag ...>children</tag>``; ``class_`` and ``aria_label`` lose their underscores."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for name, value in attributes.items()
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Iterable[Content]) -> Html:
    """Puts content behind one another, escaping what is not markup."""
    return Html(
        "".join(child if isinstance(child, Html) else html.escape(str(child)) for child in children)
    )


def page(title: str, *body: Content) -> str:
    """Builds the whole document."""
    head = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            Html(f"<style>{_STYLE}</style>"),
        ]
    )
    main = element("main", *body)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{main}</body></html>\n'


def section(title: str, *body: Content) -> Html:
    """A heading with what belongs to it."""
    return element("section", element("h2", title), *body)


def tiles(figures: Mapping[str, str]) -> Html:
    """Headline figures: caption to value."""
    return element(
        "div",
        *(
            element("div", element("b", value), element("span", caption), class_="tile")
            for caption, value in figures.items()
        ),
        class_="tiles",
    )


def facts(pairs: Mapping[str, Content]) -> Html:
    """A list of names and values."""
    rows = (joined([element("dt", name), element("dd", value)]) for name, value in pairs.items())
    return element("div", element("dl", *rows), class_="card")


def notice(lines: Iterable[Content], *, good: bool = False) -> Html:
    """What a reader must not miss, one paragraph a line; good news has another colour."""
    kind = "notice good" if good else "notice"
    return element("div", *(element("p", line) for line in lines), class_=kind)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Content]], *, total: Sequence[Content] = ()
) -> Html:
    """A table; the first column is left-aligned, ``total`` is a row that stands out at the end."""
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    if total:
        body.append(element("tr", *(element("td", cell) for cell in total), class_="total"))
    head = element("thead", element("tr", *(element("th", column) for column in columns)))
    return element("div", element("table", head, element("tbody", *body)), class_="card")


def swatch(name: str, rgb: Rgb) -> Html:
    """A class's colour and name."""
    square = element("span", class_="swatch", style=f"background:rgb({rgb[0]},{rgb[1]},{rgb[2]})")
    return joined([square, name])


def legend(names: Sequence[str], palette: Sequence[Rgb]) -> Html:
    """All classes in one line."""
    marks = (element("span", swatch(n, rgb)) for n, rgb in zip(names, palette, strict=True))
    return element("div", *marks, class_="legend")


def share_bar(share: float | None) -> Html:
    """A figure in 0..1 with a bar beside it; a dash for None."""
    if share is None:
        return joined(["–"])
    width = f"width:{100 * min(max(share, 0.0), 1.0):.1f}%"
    bar = element("span", element("i", style=width), class_="bar", aria_hidden="true")
    return joined([f"{share:.3f}", bar])


def picture(image: Image, alt: str, *, lossless: bool = False, caption: str = "") -> Html:
    """An image within the document.

    Args:
        image: (H, W, 3) uint8, BGR.
        alt: What it shows, for those who cannot see it.
        lossless: PNG, for drawings; else JPEG, for photographs.
        caption: Stands on the image; none if empty.
    """
    kind, suffix = ("png", ".png") if lossless else ("jpeg", ".jpg")
    data = base64.b64encode(encode_image(image, suffix)).decode()
    height, width = image.shape[:2]
    source = f"data:image/{kind};base64,{data}"
    shown = [element("img", src=source, alt=alt, width=width, height=height, loading="lazy")]
    if caption:
        shown.append(element("figcaption", caption))
    return element("figure", *shown)


def contact_sheet(heads: Sequence[str], rows: Iterable[Sequence[Html]]) -> Html:
    """Pictures in rows under column heads; two columns on a narrow screen."""
    cells = [element("div", head, class_="head") for head in heads]
    cells += [cell for row in rows for cell in row]
    return element("div", *cells, class_=f"sheet of{len(heads)}", style=f"--columns:{len(heads)}")


def stack_bar(parts: Mapping[str, float], *, unit: str) -> Html:
    """A bar cut into the parts of a total, with a legend."""
    total = sum(parts.values()) or 1.0
    pieces, marks = [], []
    for index, (name, value) in enumerate(parts.items()):
        colour = f"k{index % 6}"
        pieces.append(element("i", class_=colour, style=f"width:{100 * value / total:.2f}%"))
        dot = element("span", class_=f"swatch {colour}")
        marks.append(element("span", dot, f"{name} {value:.1f} {unit}"))
    return element(
        "div",
        element("div", *marks, class_="legend"),
        element("div", *pieces, class_="stack", aria_hidden="true"),
        class_="card",
    )


def line_plot(series: Sequence[Series], *, x_label: str, x_step: float = 1.0) -> Html:
    """A plot of up to two series of shares in 0..1 as an inline drawing.

    Args:
        series: Lines of equal length; the first one stands out.
        x_label: Name and unit of the x axis.
        x_step: Units of the x axis from one value to the next.
    """
    left, top, width, height = 44, 12, 860, 220
    count = max(2, *(len(line.values) for line in series))
    drawn: list[Html] = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + height * (1 - share)
        drawn.append(element("line", class_="grid", x1=left, x2=left + width, y1=y, y2=y))
        drawn.append(element("text", f"{share:.2f}", x=left - 8, y=y + 4, text_anchor="end"))
    for place in range(5):
        x = left + width * place / 4
        value = (count - 1) * x_step * place / 4
        drawn.append(
            element("text", f"{value:.2f}" if 0 < value < 1 else f"{value:.3g}",
                    x=x, y=top + height + 22, text_anchor="middle")
        )  # fmt: skip
    for index, line in reversed(list(enumerate(series))):
        path = _path(line.values, count, (left, top, width, height))
        drawn.append(element("path", class_=f"line s{index}", d=path))
    drawn.append(element("text", x_label, x=left + width, y=top + height + 52, text_anchor="end"))
    names = (
        element("span", element("span", class_=f"swatch k{index}"), line.name)
        for index, line in enumerate(series)
    )
    plot = element(
        "svg", *drawn, viewBox=f"0 0 {left + width + 16} {top + height + 58}", role="img",
        aria_label=", ".join(line.name for line in series),
    )  # fmt: skip
    return element("div", element("div", *names, class_="legend"), plot, class_="card")


def _path(
    values: Sequence[float | None], count: int, box: tuple[float, float, float, float]
) -> str:
    """Path of a line through the values; a None lifts the pen."""
    left, top, width, height = box
    commands = []
    pen_down = False
    for index, value in enumerate(values):
        if value is None or math.isnan(value):
            pen_down = False
            continue
        x = left + width * index / (count - 1)
        y = top + height * (1 - min(max(value, 0.0), 1.0))
        commands.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = True
    return " ".join(commands)
