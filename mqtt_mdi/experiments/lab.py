"""Where simulations run: several at once, with a bar that shows how far they are."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mqtt_mdi.experiments.measure import Run, Trial, run
from mqtt_mdi.experiments.settings import Settings


class Lab:
    """Runs trials on as many processors as the settings say, with one of them in this very process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))

    def __enter__(self) -> Self:
        self._stack.enter_context(self._progress)
        if self.settings.jobs > 1:
            # Not forked: threads of this process, such as the bar's, could leave a copy locked for ever.
            pool = ProcessPoolExecutor(self.settings.jobs, mp_context=get_context("spawn"))
            self._pool = self._stack.enter_context(pool)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._stack.__exit__(kind, error, trace)

    def run(self, trials: Sequence[Trial], about: str) -> list[Run]:
        """Run trials; their runs come in the same order. `about` is what the bar says."""
        runs = map(run, trials) if self._pool is None else self._pool.map(run, trials)
        bar = self._progress.add_task(about, total=len(trials))
        done = []
        for each in runs:
            done.append(each)
            self._progress.advance(bar)
        self._progress.remove_task(bar)
        return done
