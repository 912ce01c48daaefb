"""A scenario over a real broker: each device a process that passes for one of the scenario's speed.

Links cannot be made slower here: every device reaches the broker over this machine's own network.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.core.types import Result
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker import choose, running_broker
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.processes import Part, running
from mqtt_mdi.runtime.sensor import SensorSettings, SensorShell, Tally, wait_until_ready
from mqtt_mdi.simulation.scenario import DeviceSpec, Scenario
from mqtt_mdi.storage.store import PolicyChange, read_policies
from mqtt_mdi.wire.frames import encode_png

PIPELINE = "experiment"
READY_S = 60.0
SENSOR_WINDOW = 96
"""More than the 64 frames that a source admits at once; each one more is waited for when the time is over."""


@dataclass(frozen=True)
class LiveReport:
    """What a run brought. `answered_at` are the seconds from the first frame to each answer.

    `policies` are the changes of policy in the same seconds, negative before the first frame.
    """

    tally: Tally
    answered_at: tuple[float, ...]
    policies: tuple[tuple[float, PolicyChange], ...]

    def rate(self, begin: float, end: float) -> float:
        """Answers a second between two times."""
        return sum(begin <= at < end for at in self.answered_at) / (end - begin)


@dataclass
class _Fleet:
    """The processes of devices, to be killed and started again."""

    scenario: Scenario
    broker: BrokerURL
    bundle: Path
    folder: Path
    parts: dict[str, tuple[AbstractContextManager[Part], Part]] = field(default_factory=dict)

    def start(self, spec: DeviceSpec) -> None:
        """Start a device's process."""
        held = "all" if spec.stages == "all" else ",".join(map(str, spec.stages)) or "none"
        role = "source" if spec.source else "device"
        arguments = [role, "--pipeline", PIPELINE, "--id", spec.id, "--stages", held]
        arguments += ["--bundle", str(self.bundle), "--emulate", str(spec.macs_per_second)]
        if spec.memory is not None:
            arguments += ["--memory", str(spec.memory)]
        context = running(spec.id, arguments, self.broker, self.folder)
        self.parts[spec.id] = context, context.__enter__()

    def kill(self, device: str) -> None:
        """End a device's process as a power cut would."""
        context, part = self.parts.pop(device)
        part.process.kill()
        context.__exit__(None, None, None)

    def check(self) -> None:
        """Raise ConfigError when a process ended by itself."""
        for _, part in self.parts.values():
            part.check()

    def stop(self) -> None:
        """End what is left."""
        for name in list(self.parts):
            self.kill(name)


def run_live(
    scenario: Scenario,
    bundle: Path,
    seconds: float,
    progress: Callable[[float], None] = lambda _seconds: None,
) -> LiveReport:
    """Run a scenario's devices for some seconds of saturating or steady frames.

    Frames begin when every stage is held by somebody; the faults' times count from there. `progress` is told
    the seconds so far. Raises ConfigError when a part does not come up.
    """
    sample = read_sample(bundle)
    frames = [encode_png(picture) for picture in sample.pictures]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mqtt-mdi-live-")))
        broker = stack.enter_context(running_broker(choose("auto")))
        fleet = _Fleet(scenario, broker, bundle, folder)
        stack.callback(fleet.stop)
        database = folder / "live.db"
        coordinator = stack.enter_context(_coordinator(scenario, broker, bundle, database, folder))
        for spec in scenario.devices:
            fleet.start(spec)

        def alive(_missing: list[str]) -> None:
            coordinator.check()
            fleet.check()

        answered_at: list[float] = []

        def answered(_result: Result, _tally: Tally) -> None:
            answered_at.append(time.monotonic())
            progress(answered_at[-1] - answered_at[0])

        rate = None if scenario.arrivals.kind == "saturating" else scenario.arrivals.rate
        settings = SensorSettings(broker, PIPELINE, "cam1", None, rate, SENSOR_WINDOW, seconds)
        shell = SensorShell(settings, frames, [int(label) for label in sample.labels], answered)
        wait_until_ready(shell, READY_S, alive)
        began, wall = time.monotonic(), time.time()
        for fault in scenario.faults:
            spec = next(spec for spec in scenario.devices if spec.id == fault.device)
            strike = _strike(fleet, spec, fault.what)
            shell.set_timer(f"{fault.what} {fault.device} {fault.at_s}", began + fault.at_s, strike)
        tally = shell.serve()
        policies = tuple((change.set_at - wall, change) for change in read_policies(database, PIPELINE))
    return LiveReport(tally, tuple(at - began for at in answered_at), policies)


def _strike(fleet: _Fleet, spec: DeviceSpec, what: str) -> Callable[[str], None]:
    if what == "dies":
        return lambda _key: fleet.kill(spec.id)
    if what == "returns":
        return lambda _key: fleet.start(spec)
    raise ConfigError(f"faults: a device that {what} cannot be had with real processes")


@contextmanager
def _coordinator(
    scenario: Scenario, broker: BrokerURL, bundle: Path, database: Path, folder: Path
) -> Iterator[Part]:
    arguments = ["coordinator", "--pipeline", PIPELINE, "--bundle", str(bundle), "--db", str(database)]
    arguments += ["--policy", json.dumps(scenario.policy_patch())]
    with running("coordinator", arguments, broker, folder) as part:
        yield part
