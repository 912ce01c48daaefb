"""`mqtt-mdi experiment`: what the project claims, measured again on this machine."""

import os
from importlib import import_module
from pathlib import Path

import click

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.cli.options import bundle_option
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.experiments.settings import Settings, writable
from mqtt_mdi.experiments.tables import show

EXPERIMENTS = {
    "rate": "Frames a second against the topology, contestant by contestant.",
    "accuracy": "Accuracy against the rate at which frames arrive.",
    "uneven": "Five devices of uneven speed and memory.",
    "churn": "Devices that die and return, simulated and over a real broker.",
    "scale": "Ten to ten thousand devices: what simulating them takes.",
}
"""Each is a module of mqtt_mdi.experiments with a function `experiment(settings) -> Findings`."""


@click.group(short_help="Measure what the project claims.")
def experiment() -> None:
    """Measure what the project claims, again, on virtual time and, for churn, over a real broker, too.

    Each experiment writes its rows as CSV, its tables as Markdown and its figures as SVG and PNG; the same
    seed brings the same rows. docs/experiments.md tells what they show.

    \b
    Example:
      mqtt-mdi experiment rate --quick
    """  # noqa: D301 -- click's mark for lines to keep


def _command(name: str, about: str) -> click.Command:
    @click.command(name, help=about)
    @bundle_option(
        "Folder of the model whose exit trace is replayed; the shipped one by default.", SHIPPED_BUNDLE
    )
    @click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("runs", f"experiment-{name}"),
        show_default=True,
        envvar="MDI_OUT",
        help="Folder for what it writes.",
    )
    @click.option(
        "--frames",
        type=click.IntRange(min=600),
        envvar="MDI_FRAMES",
        help="Frames a simulation, instead of its own number.",
    )
    @click.option("--seed", type=int, default=1, show_default=True, envvar="MDI_SEED", help="The first seed.")
    @click.option(
        "--jobs",
        type=click.IntRange(min=1),
        default=os.cpu_count() or 1,
        show_default="one a processor",
        envvar="MDI_JOBS",
        help="Simulations at once.",
    )
    @click.option("--quick", is_flag=True, help="Seconds instead of minutes, for trying it out.")
    def command(bundle: Path, out: Path, frames: int | None, seed: int, jobs: int, quick: bool) -> None:
        try:
            module = import_module(f"mqtt_mdi.experiments.{name}")
        except ModuleNotFoundError as error:
            raise ConfigError(f"experiments need {error.name}: pip install 'mqtt-mdi[experiment]'") from error
        read_manifest(bundle)
        findings = module.experiment(Settings(bundle, writable(out), frames, seed, quick, jobs))
        written = findings.write(out)
        for title, cells in findings.tables.items():
            show(title, cells)
        for remark in findings.remarks:
            click.echo(remark)
        click.echo(f"wrote {', '.join(map(str, written))}")

    return command


for _name, _about in EXPERIMENTS.items():
    experiment.add_command(_command(_name, _about))
