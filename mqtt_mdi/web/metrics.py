"""The metrics that Prometheus is told, in one table; names follow its conventions.

`python -m mqtt_mdi.web.metrics` prints the table of docs/howto/metrics.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.web.sight import PLANNER_STATES, Sight

Samples = Iterable[tuple[tuple[str, ...], float]]
Read = Callable[[Sight], Samples]

DEVICE = ("device",)


@dataclass(frozen=True)
class Metric:
    """One metric: its values at a moment, each with the values of its labels.

    A histogram's are its cumulated buckets in the order of the ledger's LATENCY_BOUNDS_S.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    read: Read
    labels: tuple[str, ...] = ()


def _one(read: Callable[[Sight], float]) -> Read:
    """A value without labels."""
    return lambda sight: [((), read(sight))]


def _online(read: Callable[[DeviceState], float | None]) -> Read:
    """A value of each device that is online and has one: what a dead one said last is true no more."""

    def samples(sight: Sight) -> Iterator[tuple[tuple[str, ...], float]]:
        for state, _age in sight.heard:
            if state.online and (value := read(state)) is not None:
                yield (state.device,), value

    return samples


def _counted(name: str, *roles: str) -> Read:
    """A counter of each device of these roles, the last known one of those that are gone."""
    return lambda sight: [
        ((state.device,), state.counters.get(name, 0)) for state, _age in sight.heard if state.role in roles
    ]


def _stages(read: Callable[[DeviceState], Iterable[tuple[int, float]]]) -> Read:
    """A value for some stages of each device that is online."""
    return lambda sight: [
        ((state.device, str(stage)), value)
        for state, _age in sight.heard
        if state.online
        for stage, value in read(state)
    ]


def _devices(sight: Sight) -> Samples:
    known = Counter((state.role, state.online) for state in sight.view.devices)
    return [
        ((role, "online" if online else "offline"), known[role, online])
        for role in ("device", "source")
        for online in (True, False)
    ]


_COORDINATOR = (
    Metric(
        "mdi_build_info",
        "gauge",
        "Always 1; the labels say what runs.",
        lambda sight: [((sight.version, sight.pipeline, sight.model), 1)],
        ("version", "pipeline", "model"),
    ),
    Metric(
        "mdi_broker_connected",
        "gauge",
        "1 while the coordinator is connected to the broker.",
        _one(lambda sight: sight.view.connected),
    ),
    Metric(
        "mdi_frames_answered_total",
        "counter",
        "Frames with a label for an answer, since the database began.",
        _one(lambda sight: sight.view.answered),
    ),
    Metric(
        "mdi_frames_failed_total",
        "counter",
        "Frames answered as failed, since the database began.",
        _one(lambda sight: sight.view.failed),
    ),
    Metric(
        "mdi_frames_duplicate_total",
        "counter",
        "Results that the database had already.",
        _one(lambda sight: sight.view.duplicates),
    ),
    Metric(
        "mdi_frames_graded_total",
        "counter",
        "Answers whose truth is known, since the database began.",
        _one(lambda sight: sight.view.graded),
    ),
    Metric(
        "mdi_frames_correct_total",
        "counter",
        "Graded answers that were right, since the database began.",
        _one(lambda sight: sight.view.correct),
    ),
    Metric(
        "mdi_exit_frames_total",
        "counter",
        "Answers by the exit at which the frame left, since the database began.",
        lambda sight: [((str(stage),), count) for stage, count in enumerate(sight.view.exits, 1)],
        ("exit",),
    ),
    Metric(
        "mdi_frame_latency_seconds",
        "histogram",
        "From admission to answer, by the source's clock.",
        lambda sight: [((), count) for count in sight.latencies],
    ),
    Metric(
        "mdi_exit_threshold",
        "gauge",
        "Score at which a frame leaves at an exit.",
        lambda sight: [((str(k),), value) for k, value in enumerate(sight.view.policy.thresholds, 1)],
        ("exit",),
    ),
    Metric(
        "mdi_policy_info",
        "gauge",
        "Always 1; the label is the strategy in force.",
        lambda sight: [((sight.view.policy.strategy,), 1)],
        ("strategy",),
    ),
    Metric(
        "mdi_policy_version",
        "gauge",
        "Version of the policy in force.",
        _one(lambda sight: sight.view.policy.version),
    ),
    Metric(
        "mdi_policy_queue_limit_tasks",
        "gauge",
        "Tasks that an input or output queue holds at most.",
        _one(lambda sight: sight.view.policy.queue_limit),
    ),
    Metric(
        "mdi_policy_silence_seconds",
        "gauge",
        "Age of its state at which a device is taken for dead.",
        _one(lambda sight: sight.view.policy.silence_s),
    ),
    Metric(
        "mdi_planner_state",
        "gauge",
        "1 for the state that the planner is in, 0 for the others; off unless the strategy plans.",
        lambda sight: [((state,), state == sight.planner) for state in PLANNER_STATES],
        ("state",),
    ),
    Metric(
        "mdi_planner_decisions_total",
        "counter",
        "Decisions of the planner.",
        _one(lambda sight: sight.decisions),
    ),
    Metric(
        "mdi_dead_letters_total",
        "counter",
        "Dead letters of all processes that were stored.",
        _one(lambda sight: sight.dead_letters),
    ),
    Metric(
        "mdi_bad_messages_total",
        "counter",
        "Messages that the coordinator could not understand.",
        _one(lambda sight: sight.bad_messages),
    ),
    Metric(
        "mdi_storage_failing",
        "gauge",
        "1 while the database does not take what is to be stored.",
        _one(lambda sight: sight.view.storage_error is not None),
    ),
    Metric(
        "mdi_storage_waiting_messages",
        "gauge",
        "Messages that came and are not in the database yet, and so not acknowledged.",
        _one(lambda sight: sight.unstored),
    ),
    Metric(
        "mdi_broker_dropped_messages_total",
        "counter",
        "Messages that the broker dropped since its start, as a queue was full (--watch-broker).",
        lambda sight: [] if sight.broker_dropped is None else [((), sight.broker_dropped)],
    ),
    Metric(
        "mdi_devices",
        "gauge",
        "Devices and sources that the coordinator knows, also beyond those with metrics of their own.",
        _devices,
        ("role", "state"),
    ),
)

_DEVICES = (
    Metric(
        "mdi_device_online",
        "gauge",
        "1 while a device or source is online.",
        lambda sight: [((state.device, state.role), state.online) for state, _age in sight.heard],
        ("device", "role"),
    ),
    Metric(
        "mdi_device_state_age_seconds",
        "gauge",
        "Since the coordinator heard the state of a device that is online.",
        lambda sight: [((state.device,), age) for state, age in sight.heard if state.online],
        DEVICE,
    ),
    Metric(
        "mdi_device_input_queue_tasks",
        "gauge",
        "Tasks that wait to be run.",
        _online(lambda state: state.input_queue),
        DEVICE,
    ),
    Metric(
        "mdi_device_output_queue_tasks",
        "gauge",
        "Tasks that wait to be handed on.",
        _online(lambda state: state.output_queue),
        DEVICE,
    ),
    Metric(
        "mdi_device_running_tasks",
        "gauge",
        "Tasks that are being run.",
        _online(lambda state: state.running),
        DEVICE,
    ),
    Metric(
        "mdi_device_service_seconds",
        "gauge",
        "Moving average of the time to run a stage once.",
        _stages(lambda state: state.service_by_stage.items()),
        ("device", "stage"),
    ),
    Metric(
        "mdi_device_stage_held",
        "gauge",
        "1 for each stage that a device holds.",
        _stages(lambda state: ((stage, 1) for stage in state.stages)),
        ("device", "stage"),
    ),
    Metric(
        "mdi_device_policy_version",
        "gauge",
        "Version of the policy that a device runs.",
        _online(lambda state: state.policy_version),
        DEVICE,
    ),
    Metric(
        "mdi_device_memory_limit_bytes",
        "gauge",
        "What a device may fill with stages; none where there is no limit.",
        _online(lambda state: state.memory),
        DEVICE,
    ),
)

_ALL = ("device", "source")
_COUNTERS = {
    "mdi_device_tasks_arrived_total": ("arrived", _ALL, "Tasks that reached a device."),
    "mdi_device_tasks_completed_total": ("completed", _ALL, "Tasks whose stage a device ran."),
    "mdi_device_tasks_exited_total": ("exits", _ALL, "Tasks that left at an exit."),
    "mdi_device_tasks_sent_total": ("sent", _ALL, "Tasks handed on to another device."),
    "mdi_device_tasks_failed_total": ("failures", _ALL, "Tasks given up or handed back to their source."),
    # among a source's counters this name is that of its books
    "mdi_device_tasks_duplicate_total": ("duplicates", ("device",), "Tasks that a device had seen before."),
    "mdi_device_stage_failures_total": ("stage_failures", _ALL, "Runs of a stage that raised an error."),
    "mdi_device_policies_refused_total": (
        "policies_refused",
        _ALL,
        "Policies that did not fit a device's model.",
    ),
    "mdi_device_bad_messages_total": ("bad_messages", _ALL, "Messages that a device could not understand."),
    "mdi_device_unverified_models_total": (
        "unverified_models",
        _ALL,
        "Models that a device took without a key to check their signature.",
    ),
    "mdi_source_frames_admitted_total": ("admitted", ("source",), "Frames that a source admitted."),
    "mdi_source_frames_answered_total": ("answered", ("source",), "Frames that a source answered."),
    "mdi_source_frames_failed_total": ("failed", ("source",), "Frames that a source gave up."),
    "mdi_source_frames_refused_total": ("refused", ("source",), "Frames that a source did not admit."),
    "mdi_source_frames_retried_total": (
        "retried",
        ("source",),
        "Leases that ran out, after which a frame was tried again.",
    ),
    "mdi_source_frames_duplicate_total": (
        "duplicates",
        ("source",),
        "Frames and answers that a source had already.",
    ),
}

METRICS = (
    *_COORDINATOR,
    *_DEVICES,
    *(
        Metric(metric, "counter", about, _counted(name, *roles), DEVICE)
        for metric, (name, roles, about) in _COUNTERS.items()
    ),
)


def markdown() -> str:
    """The table of all metrics, for people."""
    lines = ["| metric | type | labels | what |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.about} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 -- for the documents
