"""What metrics are read from: one look at the coordinator, copied in its thread."""

from dataclasses import dataclass
from itertools import accumulate

from mqtt_mdi import __version__
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.runtime.coordinator import CoordinatorShell
from mqtt_mdi.web.view import View, look

MOST_DEVICES = 2000
"""Devices with metrics of their own; those online come first."""

STEPS = {"load": "loading", "route": "routing", "let go": "releasing"}
PLANNER_STATES = ("off", "idle", "solving", *STEPS.values())


@dataclass(frozen=True)
class Sight:
    """A moment of the coordinator; nothing in it changes any more.

    `heard` are devices with the seconds since each was heard. `latencies` counts answers up to each bound of
    the ledger's `LATENCY_BOUNDS_S` and one for those beyond, each with those below it. `broker_dropped` is
    None when nobody tells.
    """

    version: str
    pipeline: str
    model: str
    view: View
    heard: tuple[tuple[DeviceState, float], ...]
    latencies: tuple[int, ...]
    latency_sum_s: float
    planner: str
    decisions: int
    dead_letters: int
    bad_messages: int
    unstored: int
    broker_dropped: int | None


def observe(shell: CoordinatorShell) -> Sight:
    """Look; called in the coordinator's thread."""
    view = look(shell)
    heard = zip(view.devices, view.ages, strict=True)
    latencies = shell.machine.latencies
    return Sight(
        __version__,
        shell.topics.pipeline,
        shell.manifest.name,
        view,
        tuple(sorted(heard, key=lambda entry: not entry[0].online)[:MOST_DEVICES]),
        tuple(accumulate(latencies.counts)),
        latencies.sum_s,
        _planner(shell),
        shell.decisions,
        shell.dead_letters,
        shell.bad_messages,
        shell.unstored,
        shell.broker_dropped,
    )


def _planner(shell: CoordinatorShell) -> str:
    """Which of PLANNER_STATES the planner is in."""
    if not STRATEGIES[shell.machine.policy.strategy].planned:
        return "off"
    replanner = shell.machine.replanner
    if replanner.solving:
        return "solving"
    return "idle" if replanner.move is None else STEPS[replanner.move.step]
