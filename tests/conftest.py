from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from live import Broker, Pipeline

from mqtt_mdi.runtime.broker import mosquitto_program, running_broker

# On a busy machine any example may take long.
settings.register_profile("no hurry", deadline=None)
settings.load_profile("no hurry")


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
