"""What is redrawn on a terminal while it grows."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live


@contextmanager
def redrawn(console: Console) -> Iterator[Live]:
    """A `Live` that draws when told; in a file, where nothing is redrawn, it ends its line as well."""
    with Live(console=console, auto_refresh=False) as live:
        yield live
    if not console.is_terminal:
        console.line()
