from collections.abc import Iterator
from queue import Queue

import numpy as np
import pytest
from live import PATIENCE_S

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.core.events import StageCompleted, StageFailed
from mqtt_mdi.core.types import Task
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.runtime.runner import Runner
from mqtt_mdi.wire.frames import JPEG, Frame, encode_png
from mqtt_mdi.wire.tasks import TaskInput

MANIFEST = read_manifest(SHIPPED_BUNDLE)
FRAME = encode_png(read_sample(SHIPPED_BUNDLE).pictures[0])


class Bench:
    """A runner, and what it tells its device."""

    def __init__(self) -> None:
        self.loaded: Queue[tuple[int, str | None]] = Queue()
        self.ran: Queue[tuple[StageCompleted | StageFailed, TaskInput | None]] = Queue()
        self.runner = Runner(
            OnnxStage,
            lambda stage, fault: self.loaded.put((stage, fault)),
            lambda done, following: self.ran.put((done, following)),
        )
        self.runner.start()
        self.runner.use(MANIFEST)

    def load(self, stage: int) -> tuple[int, str | None]:
        self.runner.load(stage, read_stage(SHIPPED_BUNDLE, MANIFEST.stage(stage)))
        return self.loaded.get(timeout=PATIENCE_S)

    def run(self, stage: int, value: TaskInput) -> tuple[StageCompleted | StageFailed, TaskInput | None]:
        self.runner.run(Task("cam", "1", "source-1", stage), value)
        return self.ran.get(timeout=PATIENCE_S)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.runner.stop()


def test_a_frame_through_two_stages(bench: Bench) -> None:
    assert bench.load(1) == (1, None)
    assert bench.load(2) == (2, None)
    done, activation = bench.run(1, FRAME)
    assert isinstance(done, StageCompleted)
    assert isinstance(activation, np.ndarray)
    assert activation.shape == (1, *MANIFEST.stage(2).input_shape)
    assert done.size == activation.nbytes == MANIFEST.stage(1).activation_bytes
    assert 0 < done.score <= 1
    assert done.seconds > 0
    done, _ = bench.run(2, activation)
    assert isinstance(done, StageCompleted)


def test_the_last_stage_hands_nothing_on(bench: Bench) -> None:
    bench.load(4)
    done, following = bench.run(4, np.zeros((1, *MANIFEST.stage(4).input_shape), np.float32))
    assert isinstance(done, StageCompleted)
    assert (done.size, following) == (0, None)


def test_bad_inputs_fail_for_good(bench: Bench) -> None:
    bench.load(1)
    for value in (Frame(JPEG, b"no picture"), np.zeros((1, 2, 3, 4), np.float32), np.zeros((1,), np.uint8)):
        failed, following = bench.run(1, value)
        assert isinstance(failed, StageFailed)
        assert not failed.retry
        assert following is None


def test_a_stage_that_is_not_there_may_be_tried_elsewhere(bench: Bench) -> None:
    failed, _ = bench.run(3, np.zeros((1, *MANIFEST.stage(3).input_shape), np.float32))
    assert isinstance(failed, StageFailed)
    assert failed.retry
    bench.load(1)
    bench.runner.unload(1)
    failed, _ = bench.run(1, FRAME)
    assert isinstance(failed, StageFailed)
    bench.load(1)
    bench.runner.use(MANIFEST)  # another bundle: nothing of the old one stays
    failed, _ = bench.run(1, FRAME)
    assert isinstance(failed, StageFailed)


def test_a_graph_that_cannot_be_loaded_is_told(bench: Bench) -> None:
    bench.runner.load(1, b"no graph")
    stage, fault = bench.loaded.get(timeout=PATIENCE_S)
    assert stage == 1
    assert fault is not None
    assert "stage 1 cannot be loaded" in fault
    bench.runner.load(1, read_stage(SHIPPED_BUNDLE, MANIFEST.stage(2)))
    _, fault = bench.loaded.get(timeout=PATIENCE_S)
    assert fault is not None
    assert "stage 1: graph takes" in fault
    assert bench.load(1) == (1, None)
