"""`mqtt-mdi simulate`: a scenario on virtual time, by the machines that run on boards."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, Manifest, read_manifest
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.cli.options import bundle_option
from mqtt_mdi.core.coordinator import quantile
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.reach import reach_of_exits
from mqtt_mdi.planning.solve import solver
from mqtt_mdi.simulation.bound import problem_of
from mqtt_mdi.simulation.compute import network_of
from mqtt_mdi.simulation.node import is_laid_out
from mqtt_mdi.simulation.report import Report
from mqtt_mdi.simulation.scenario import Scenario, read_scenario
from mqtt_mdi.simulation.world import World


def print_schema(context: click.Context, _option: click.Parameter, wanted: object) -> None:
    """Print the JSON Schema of scenario files and end."""
    if wanted:
        click.echo(json.dumps(Scenario.model_json_schema(), indent=2))
        context.exit()


@click.command(short_help="Run a scenario on virtual time.")
@click.argument("scenario", type=click.Path(dir_okay=False, path_type=Path))
@bundle_option(
    "Folder of the model whose exit trace is replayed; the shipped one by default.", SHIPPED_BUNDLE
)
@click.option("--seed", type=int, envvar="MDI_SEED", help="Instead of the scenario's own.")
@click.option(
    "--csv",
    "table",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MDI_CSV",
    help="Write every frame's answer to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on the last line.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_schema,
    help="Print the JSON Schema of scenario files.",
)
def simulate(scenario: Path, bundle: Path, seed: int | None, table: Path | None, as_json: bool) -> None:
    """Run SCENARIO, a YAML file, on virtual time.

    The machines are those of the real service; stages take the time their multiply-adds ask for, and
    exits answer what they answered when the bundle was evaluated. One seed, one digest.

    \b
    Example:
      mqtt-mdi simulate benchmarks/scenarios/mesh-3.yaml
    """  # noqa: D301 -- click's mark for lines to keep
    chosen = read_scenario(scenario)
    if seed is not None:
        chosen = chosen.model_copy(update={"seed": seed})
    manifest = read_manifest(bundle)
    world = World(chosen, network_of(manifest, read_trace(bundle), chosen.seed), solver(bundle))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(chosen.name, total=chosen.frames)
        report = world.run(lambda answers: progress.update(bar, completed=answers))
    if table is not None:
        write_csv(world, table)
    bound = rate_bound(world, manifest, report)
    print_report(report, bound, world.decisions)
    if as_json:
        click.echo(json.dumps(figures(report, bound)))


def rate_bound(world: World, manifest: Manifest, report: Report) -> float | None:
    """Frames a second that no policy could beat, without faults and with frames leaving where they left.

    Stages are where the scenario has them, or anywhere there is room if its strategy lays them out. None
    where scipy is not installed or nothing was answered.
    """
    try:
        from mqtt_mdi.planning.fluid import fluid_bound  # noqa: PLC0415 -- scipy is an extra
    except ModuleNotFoundError:
        click.echo("no scipy, so no fluid bound to compare with: pip install 'mqtt-mdi[plan]'", err=True)
        return None
    if not report.answered:
        return None
    reach, freely = reach_of_exits(report.exits), is_laid_out(world.policy)
    return fluid_bound(problem_of(world.scenario, manifest, reach, placed_freely=freely)).rate


def figures(report: Report, bound: float | None) -> dict[str, object]:
    """A report in a few numbers; those of the bound only where it is known."""
    document = asdict(report)
    latencies = document.pop("latencies_ms")
    return {
        **document,
        "throughput": report.throughput,
        "accuracy": report.accuracy,
        "latency_p50_ms": quantile(latencies, 0.5),
        "latency_p95_ms": quantile(latencies, 0.95),
        **({"fluid_bound": bound, "efficiency": report.throughput / bound} if bound else {}),
    }


def write_csv(world: World, path: Path) -> None:
    """One row an answer, in the order in which they came."""
    try:
        with path.open("w", newline="") as file:
            rows = csv.DictWriter(file, list(asdict(world.results[0])) if world.results else [])
            rows.writeheader()
            rows.writerows(asdict(result) for result in world.results)
    except OSError as error:
        raise ConfigError(f"cannot write --csv {path}: {error.strerror}") from error


def print_report(report: Report, bound: float | None, decisions: Sequence[tuple[float, str]] = ()) -> None:
    """A table for people."""
    given = figures(report, bound)
    total = sum(report.exits) or 1
    table = Table(title=report.name, show_header=False)
    rows = {
        "virtual time": f"{report.seconds:.2f} s",
        "admitted": str(report.admitted),
        "answered": str(report.answered),
        "failed": str(report.failed),
        "refused": str(report.refused),
        "still owed": str(report.owed),
        "throughput": f"{report.throughput:.1f} frames/s",
        **(
            {
                "fluid bound": f"{bound:.1f} frames/s",
                "efficiency": f"{100 * report.throughput / bound:.1f}% of the bound",
            }
            if bound
            else {}
        ),
        "accuracy": "-" if report.accuracy is None else f"{100 * report.accuracy:.2f}%",
        "left at exit": "  ".join(f"{k}: {100 * n / total:.0f}%" for k, n in enumerate(report.exits, 1)),
        "latency, median": f"{given['latency_p50_ms'] or 0:.1f} ms",
        "latency, 95th percentile": f"{given['latency_p95_ms'] or 0:.1f} ms",
        "stages run": "  ".join(f"{name}: {n}" for name, n in report.completed.items()),
        **({"planner": "\n".join(f"{at:.1f} s: {reason}" for at, reason in decisions)} if decisions else {}),
        "events": str(report.events),
        "digest": report.digest[:16],
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
