"""A report as one HTML file that needs nothing beside it: no network, no script."""

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

import mqtt_mdi
from mqtt_mdi.reporting.figures import draw
from mqtt_mdi.reporting.runs import Run
from mqtt_mdi.reporting.tables import tables
from mqtt_mdi.reporting.text import one_line


def page(runs: Sequence[Run]) -> str:
    """The page, light or dark as the reader's system is; it is well-formed XML, too."""
    template = files("mqtt_mdi.reporting").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["one_line"] = one_line
    title = "Report: " + " and ".join(run.name for run in runs)
    return environment.from_string(template).render(
        title=title, runs=runs, tables=tables(runs), drawings=draw(runs), version=mqtt_mdi.__version__
    )
