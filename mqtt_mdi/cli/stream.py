"""Stream a bundle's sample with a live progress bar: what `sensor` and `demo` share."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.cli.options import stop_on_signals
from mqtt_mdi.core.types import Result
from mqtt_mdi.runtime.sensor import SensorSettings, SensorShell, Tally, wait_until_ready
from mqtt_mdi.wire.frames import encode_png

READY_S = 60.0


def stream_sample(settings: SensorSettings, bundle: Path, alive: Callable[[], None] = lambda: None) -> Tally:
    """Send a sample's pictures and hear their answers; `alive` may raise while the pipeline comes up."""
    sample = read_sample(bundle)
    frames = [encode_png(picture) for picture in sample.pictures]
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[story]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("starting", total=settings.frames, story="")

        def waiting(missing: list[str]) -> None:
            alive()
            progress.update(bar, story=f"waiting for {', '.join(missing)}")

        def answered(_result: Result, tally: Tally) -> None:
            story = f"{100 * tally.correct / tally.graded:.1f}% right" if tally.graded else ""
            done = tally.answered + tally.failed
            progress.update(bar, description="frames", completed=done, story=story)

        shell = SensorShell(settings, frames, [int(label) for label in sample.labels], answered)
        stop_on_signals(shell.finish)
        alive()  # whoever was told to stop before that knows of it
        wait_until_ready(shell, READY_S, waiting)
        return shell.serve()
