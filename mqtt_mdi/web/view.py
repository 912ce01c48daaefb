"""What the page shows of the coordinator now: copied in its thread, put into words in the page's."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mqtt_mdi.core.coordinator import exit_counts
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.runtime.coordinator import CoordinatorShell
from mqtt_mdi.web.flows import FEW, Pair
from mqtt_mdi.wire.messages import Metrics

MOST_TILES = 2000
ROWS = 25

TROUBLE = ("offline", "silent", "online")
"""How a device may be, the worst first."""


@dataclass(frozen=True)
class View:
    """A moment of the coordinator; nothing in it changes any more.

    `ages` are the seconds since each device was heard, `planner` is what the planner is doing, if it does.
    """

    at: float
    connected: bool
    policy: Policy
    devices: tuple[DeviceState, ...]
    ages: tuple[float, ...]
    exits: tuple[int, ...]
    answered: int
    failed: int
    duplicates: int
    graded: int
    correct: int
    metrics: Metrics | None
    storage_error: str | None
    decision: str | None
    planner: str | None


def look(shell: CoordinatorShell) -> View:
    """Copy what the page needs; called in the coordinator's thread, so it has to be short."""
    machine, now = shell.machine, shell.now()
    devices = tuple(machine.devices[name] for name in sorted(machine.devices))
    totals = machine.totals
    return View(
        time.time(),
        shell.connection.connected,
        machine.policy,
        devices,
        tuple(now - machine.seen_at[state.device] for state in devices),
        exit_counts(totals.exits, machine.stage_count),
        totals.answered,
        totals.failed,
        totals.duplicates,
        totals.graded,
        totals.correct,
        shell.metrics,
        shell.storage_error,
        shell.decision,
        _doing(shell),
    )


def _doing(shell: CoordinatorShell) -> str | None:
    replanner = shell.machine.replanner
    if replanner.solving:
        return f"solving: {replanner.asked}"
    if replanner.move is not None:
        return {"load": "about to load", "route": "waiting until devices have loaded"}.get(
            replanner.move.step, "waiting until devices let stages go"
        )
    return None


def tell(view: View, flows: dict[Pair, float]) -> dict[str, Any]:
    """A view in JSON's terms; times in seconds, latencies in milliseconds, flows in bytes a second.

    Its size grows with the devices and no faster, up to MOST_TILES of them: `devices` and `links` are of FEW,
    `tiles` of more, those in trouble first where not all find room.
    """
    metrics = view.metrics
    few = len(view.devices) <= FEW
    return {
        "at": view.at,
        "connected": view.connected,
        "storage_error": view.storage_error,
        "policy_version": view.policy.version,
        "strategy": view.policy.strategy,
        "thresholds": view.policy.thresholds,
        "silence_s": view.policy.silence_s,
        "queue_limit": view.policy.queue_limit,
        "decision": view.decision,
        "planner": view.planner,
        "answered": view.answered,
        "failed": view.failed,
        "duplicates": view.duplicates,
        "graded": view.graded,
        "correct": view.correct,
        "exits": view.exits,
        "throughput": metrics.throughput if metrics else None,
        "latency_p50_ms": metrics.latency_p50_ms if metrics else None,
        "latency_p95_ms": metrics.latency_p95_ms if metrics else None,
        "roles": _roles(view.devices),
        "holders": _holders(view),
        "bytes_s": sum(flows.values()),
        "devices": _in_full(view, flows, range(len(view.devices))) if few else [],
        "links": [_link(pair, view.devices, flows.get(pair)) for pair in _pairs(view.devices)] if few else [],
        "tiles": [] if few else _tiles(view),
    }


def find(view: View, flows: dict[Pair, float], words: str, first: int) -> dict[str, Any]:
    """ROWS devices in full, from the one numbered `first` on; of those with `words` in their names.

    Those in trouble come first.
    """
    healths = _healths(view)
    wanted = words.lower()
    places = [place for place, state in enumerate(view.devices) if wanted in state.device.lower()]
    places.sort(key=lambda place: TROUBLE.index(healths[place]))
    rows = _in_full(view, flows, places[first : first + ROWS])
    return {"found": len(places), "first": first, "rows": ROWS, "devices": rows}


def _health(state: DeviceState, age_s: float, silence_s: float) -> str:
    if not state.online:
        return "offline"
    return "silent" if age_s > silence_s / 2 else "online"


def _healths(view: View) -> list[str]:
    silence = view.policy.silence_s
    return [_health(state, age, silence) for state, age in zip(view.devices, view.ages, strict=True)]


def _roles(devices: tuple[DeviceState, ...]) -> dict[str, list[int]]:
    """How many are online, and how many there are, of each role."""
    roles = {"device": [0, 0], "source": [0, 0]}
    for state in devices:
        roles[state.role][0] += state.online
        roles[state.role][1] += 1
    return roles


def _holders(view: View) -> list[int]:
    """How many hold each stage, and are online."""
    counts = Counter(stage for state in view.devices if state.online for stage in state.stages)
    return [counts[stage] for stage in range(1, len(view.exits) + 1)]


def _tiles(view: View) -> list[list[object]]:
    """What a tile shows of each device: name, role, health, queues."""
    pairs = list(zip(view.devices, _healths(view), strict=True))
    if len(pairs) > MOST_TILES:
        pairs.sort(key=lambda pair: TROUBLE.index(pair[1]))
    return [
        [state.device, state.role, health, state.input_queue, state.output_queue]
        for state, health in pairs[:MOST_TILES]
    ]


def _in_full(view: View, flows: dict[Pair, float], places: Iterable[int]) -> list[dict[str, Any]]:
    received: dict[str, float] = {}
    for (_, receiver), flow in flows.items():
        received[receiver] = received.get(receiver, 0.0) + flow
    healths = _healths(view)
    return [
        _device(state, healths[place], view.ages[place], received.get(state.device))
        for place in places
        for state in [view.devices[place]]
    ]


def _pairs(devices: tuple[DeviceState, ...]) -> list[Pair]:
    """Who hears whom: the links there are."""
    online = {state.device for state in devices if state.online}
    return [
        (sender, state.device)
        for state in devices
        if state.online
        for sender in sorted(state.echoes)
        if sender in online
    ]


def _link(pair: Pair, devices: tuple[DeviceState, ...], flow: float | None) -> dict[str, Any]:
    sender = next(state for state in devices if state.device == pair[0])
    return {"from": pair[0], "to": pair[1], "bytes_s": flow, "delay_s": sender.delays.get(pair[1])}


def _device(state: DeviceState, health: str, age_s: float, bytes_s: float | None) -> dict[str, Any]:
    return {
        "device": state.device,
        "role": state.role,
        "online": state.online,
        "health": health,
        "age_s": round(age_s, 3),
        "stages": state.stages,
        "input_queue": state.input_queue,
        "output_queue": state.output_queue,
        "running": state.running,
        "service_s": state.service_s,
        "counters": state.counters,
        "policy_version": state.policy_version,
        "memory": state.memory,
        "bytes_s": bytes_s,
    }
