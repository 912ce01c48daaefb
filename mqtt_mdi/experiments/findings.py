"""What an experiment brought, and how it becomes files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mqtt_mdi.experiments import figures, tables

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Findings:
    """Rows, tables and figures, each by the name of its file; remarks say what is missing."""

    csv: "Mapping[str, Sequence[DataclassInstance]]"
    tables: Mapping[str, tables.Cells]
    figures: "Mapping[str, Figure]"
    remarks: Sequence[str] = field(default_factory=list)

    def write(self, folder: Path) -> list[Path]:
        """Write it all, and say where."""
        written = []
        for name, rows in self.csv.items():
            tables.write_csv(rows, path := folder / f"{name}.csv")
            written.append(path)
        for name, cells in self.tables.items():
            (path := folder / f"{name}.md").write_text(tables.markdown(cells))
            written.append(path)
        for name, figure in self.figures.items():
            written += figures.save(figure, folder / name)
        return written
