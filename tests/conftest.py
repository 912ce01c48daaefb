import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from live import Broker, Pipeline

from mqtt_mdi.runtime.broker import mosquitto_program, running_broker

# On a busy machine any example may take long, and so may making one. The same examples each time: a run that
# fails has found what was changed. Others are looked for with --hypothesis-profile=explore.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", patient, derandomize=True)
settings.register_profile("explore", patient, max_examples=1000)
settings.load_profile("same")

# Threads of BLAS and OpenMP wait for each other busily: beside other tests, many times as long as they work.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undo what commands under test have set."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def embedded() -> Iterator[Broker]:
    with running_broker("embedded") as url:
        yield Broker("embedded", url)


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Broker]:
    if mosquitto_program() is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    with running_broker("mosquitto") as url:
        yield Broker("mosquitto", url)


@pytest.fixture(scope="session", params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker that the service must work with; a test in need of its own pipeline takes a new name."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Broker)
    return found


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Pipelines nobody has used before, since tests share brokers."""
    return (f"test-{number}" for number in count())


@pytest.fixture
def new_pipeline(names: Iterator[str], tmp_path: Path) -> Iterator[Callable[[Broker], Pipeline]]:
    """Pipelines that end with the test."""
    with ExitStack() as stack:
        yield lambda broker: stack.enter_context(Pipeline(broker, next(names), tmp_path))


@contextmanager
def _three_devices(broker: Broker, name: str, folder: Path) -> Iterator[Pipeline]:
    with Pipeline(broker, name, folder) as pipeline:
        pipeline.bring_up({"device-1": "1,2", "device-2": "2,3,4", "device-3": "1,3,4"})
        yield pipeline


@pytest.fixture(scope="module")
def pipeline(
    broker: Broker, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """The shipped network on three devices, each stage twice; a module's own."""
    with _three_devices(broker, next(names), tmp_path_factory.mktemp("pipeline")) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def shared_pipeline(
    broker: Broker, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """The same for all tests that leave the policy as it is."""
    with _three_devices(broker, next(names), tmp_path_factory.mktemp("shared")) as pipeline:
        yield pipeline
