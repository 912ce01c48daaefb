"""What the page shows of the coordinator now: copied in its thread, put into words in the page's."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from mqtt_mdi.core.coordinator import exit_counts
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.runtime.coordinator import CoordinatorShell
from mqtt_mdi.wire.messages import Metrics

FLOW_S = 3.0
"""Over how many seconds of the receiver's clock a flow is measured."""

Pair = tuple[str, str]


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


@dataclass
class Flows:
    """Bytes a second of tasks on each link, from what receivers say they have received."""

    _seen: dict[Pair, deque[tuple[float, int]]] = field(default_factory=dict)

    def take(self, devices: tuple[DeviceState, ...]) -> dict[Pair, float]:
        """The flows by (sender, receiver) after these states; of a link seen once there is none."""
        for state in devices:
            for sender, echo in state.echoes.items() if state.online else ():
                seen = self._seen.setdefault((sender, state.device), deque())
                if seen and (state.stamp < seen[-1][0] or echo.received < seen[-1][1]):
                    seen.clear()  # the receiver was started anew
                if not seen or state.stamp > seen[-1][0]:
                    seen.append((state.stamp, echo.received))
                while len(seen) > 2 and seen[1][0] < state.stamp - FLOW_S:  # noqa: PLR2004 -- two make a rate
                    seen.popleft()
        online = {state.device for state in devices if state.online}
        self._seen = {pair: seen for pair, seen in self._seen.items() if online.issuperset(pair)}
        return {
            pair: (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])
            for pair, seen in self._seen.items()
            if len(seen) > 1
        }


def tell(view: View, flows: dict[Pair, float]) -> dict[str, Any]:
    """A view in JSON's terms; times in seconds, latencies in milliseconds, flows in bytes a second."""
    metrics = view.metrics
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
        "devices": [_device(*pair) for pair in zip(view.devices, view.ages, strict=True)],
        "links": [_link(pair, view.devices, flows.get(pair)) for pair in _pairs(view.devices)],
    }


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


def _device(state: DeviceState, age_s: float) -> dict[str, Any]:
    return {
        "device": state.device,
        "role": state.role,
        "online": state.online,
        "age_s": round(age_s, 3),
        "stages": state.stages,
        "input_queue": state.input_queue,
        "output_queue": state.output_queue,
        "running": state.running,
        "service_s": state.service_s,
        "counters": state.counters,
        "policy_version": state.policy_version,
        "memory": state.memory,
    }
