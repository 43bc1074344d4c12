"""Tables on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints one. In a pipe nothing of it is cut."""
    from rich.console import Console  # noqa: PLC0415  late, as all that a command does
    from rich.table import Table  # noqa: PLC0415

    shown = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        # a name is copied whole: what explains it may fold
        shown.add_column(column, no_wrap=number == 0)
    for row in rows:
        shown.add_row(*row)
    # in a pipe there is no width to fit
    console = Console() if sys.stdout.isatty() else Console(width=240)
    console.print(shown, highlight=False, markup=False)
