"""The demo's pictures: the whole matrix as a grid, and its cells by pairs of networks with their times."""

from __future__ import annotations

import re

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .matrix import Cell, Matrix, lines
from .places import Place

REACHED, REFUSED, ELSE, SELF = Text("■", "green"), Text("·", "red"), Text("?", "bold yellow"), Text(" ")


PICTURE_COLUMNS = 100


def mark(cell: Cell | None) -> Text:
    if cell is None:
        return SELF
    return REACHED if cell.reached else REFUSED if cell.refused else ELSE


def grid(matrix: Matrix) -> RenderableType:
    """A row for each source, a column for each target, as in a road atlas."""
    places = list(dict.fromkeys(source for source, _ in matrix))
    width = max((len(str(place.address)) for place in places), default=0)
    table = Table(box=None, padding=(0, 0), show_header=False)
    table.add_column(justify="right", no_wrap=True)
    for at, source in enumerate(places):
        marks = Text()
        for column, target in enumerate(places):
            gap = "  " if column and _kind(places[column - 1]) != _kind(target) else " "
            marks.append(gap).append_text(mark(matrix.get((source, target))))
        if at and _kind(places[at - 1]) != _kind(source):
            table.add_row("", "")
        table.add_row(_label(source, width), marks)
    legend = Text.assemble(
        "columns as rows: ", REACHED, " reached by ping and TCP, ", REFUSED, " refused, ", ELSE, " else"
    )
    return Group(table, legend)


def _kind(place: Place) -> tuple[str, int]:
    return place.network, place.address.version


def _label(place: Place, width: int) -> Text:
    address = f" {place.address!s:<{width}}"
    return Text.assemble(f"{place.node} {place.engine:<6} ", (f"{place.network:<7}", "bold"), address)


def by_networks(matrix: Matrix) -> Table:
    """Times in ms: the median, and the worst in brackets."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title, side in (
        ("from", "left"),
        ("to", "left"),
        ("host", "left"),
        ("", "left"),
        ("ping ms", "right"),
        ("TCP ms", "right"),
    ):
        table.add_column(title, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for line in lines(matrix):
        style = {"reached": "green", "refused": "red"}.get(line.verdict, "bold yellow")
        times = ("{:.2f} ({:.2f})".format(*line.ms(protocol)) for protocol in ("ping", "tcp"))
        table.add_row(
            line.source, line.target, "same" if line.same_host else "other", Text(line.verdict, style), *times
        )
    return table


def console(record: bool) -> Console:
    """Plain text where stdout is no terminal; `record` keeps all for an SVG."""
    return Console(record=record, highlight=False, soft_wrap=True, width=PICTURE_COLUMNS if record else None)


def picture(recorded: Console, title: str) -> str:
    """All that was printed, as SVG. Without rich's fonts, which a reader's browser would fetch from elsewhere."""
    return re.sub(r"@font-face \{.*?\}\s*", "", recorded.export_svg(title=title), flags=re.DOTALL)
