"""The second thread of a device: it loads stages and runs them, and answers with events.

A stage that takes no longer than changing threads does is run in the caller's thread instead.
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from mqtt_mdi.bundle.manifest import Manifest, StageSpec
from mqtt_mdi.core.events import StageCompleted, StageFailed
from mqtt_mdi.core.types import Task
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.errors import BundleError, ProtocolError
from mqtt_mdi.wire.frames import Frame, decode_frame
from mqtt_mdi.wire.tasks import TaskInput

log = logging.getLogger(__name__)

SHORT_S = 0.001
"""A stage that last took less than this may run between two looks at the network."""

Load = Callable[[bytes, StageSpec], Engine]
Loaded = Callable[[int, str | None], None]
"""Told the stage, and why it could not be loaded or None."""

Ran = Callable[[StageCompleted | StageFailed, TaskInput | None], None]
"""Told what became of a task, and the next stage's input if there is one."""


class Runner:
    """Runs one job at a time; `loaded` is called in its own thread, `ran` in that or the caller's.

    `macs_per_second` makes it a slower device than it is: each stage then takes at least the time its
    multiply-adds would take at that speed.
    """

    def __init__(self, load: Load, loaded: Loaded, ran: Ran, macs_per_second: float | None = None) -> None:
        self._macs_per_second = macs_per_second
        self._load = load
        self._loaded = loaded
        self._ran = ran
        self._engines: dict[int, Engine] = {}
        self._manifest: Manifest | None = None
        self._seconds: dict[int, float] = {}
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # Each is written by one thread alone; equal, they say that the second thread is idle.
        self._given = 0
        self._finished = 0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the jobs at hand."""
        self._jobs.put(None)
        self._thread.join()

    def use(self, manifest: Manifest) -> None:
        """Forget the stages of another bundle."""
        self._give(lambda: self._use(manifest))

    def load(self, stage: int, graph: bytes) -> None:
        """Make a stage ready to run."""
        self._give(lambda: self._load_stage(stage, graph))

    def unload(self, stage: int) -> None:
        """Give a stage's memory back."""
        self._give(lambda: self._drop(stage))

    def run(self, task: Task, value: TaskInput) -> None:
        """Run a task's stage on its input: at once if it is known to be short, else in the second thread."""
        if self._given == self._finished and self._seconds.get(task.stage, SHORT_S) < SHORT_S:
            self._run(task, value)
        else:
            self._give(lambda: self._run(task, value))

    def _give(self, job: Callable[[], None]) -> None:
        self._given += 1
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # the bytes of a graph would wait here for the next one
            self._finished += 1

    def _use(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._engines.clear()
        self._seconds.clear()

    def _drop(self, stage: int) -> None:
        self._engines.pop(stage, None)

    def _load_stage(self, stage: int, graph: bytes) -> None:
        assert self._manifest is not None
        try:
            self._engines[stage] = self._load(graph, self._manifest.stage(stage))
        except BundleError as error:
            self._loaded(stage, str(error))
        except Exception as error:
            log.exception("loading stage %d", stage)
            self._loaded(stage, repr(error))
        else:
            self._loaded(stage, None)

    def _run(self, task: Task, value: TaskInput) -> None:
        assert self._manifest is not None
        began = time.perf_counter()
        try:
            engine = self._engines[task.stage]
            if isinstance(value, Frame):
                value = decode_frame(value, self._manifest.input)
            if not value.dtype.isnative:  # another type is for the engine to refuse
                value = value.astype(value.dtype.newbyteorder("="))
            output = engine.run(value)
            if self._macs_per_second is not None:
                least = self._manifest.stage(task.stage).macs / self._macs_per_second
                time.sleep(max(0.0, began + least - time.perf_counter()))
        except ProtocolError as error:
            self._ran(StageFailed(task, str(error)), None)
        except Exception as error:
            # Whatever an engine throws, the device goes on and the source hears of it.
            log.exception("stage %d of frame %s", task.stage, task.frame_id)
            self._ran(StageFailed(task, f"stage {task.stage}: {error!r}", retry=True), None)
        else:
            size = 0 if output.activation is None else output.activation.nbytes
            seconds = self._seconds[task.stage] = time.perf_counter() - began
            done = StageCompleted(task, int(output.labels[0]), float(output.scores[0]), seconds, size)
            self._ran(done, output.activation)
