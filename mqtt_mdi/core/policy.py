"""The policy: every constant of the running system, versioned, published retained."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mqtt_mdi.core.types import Count, Identifier, StageIndex

LATEST_VERSION = 2**53
"""The last that every reader of JSON tells from its neighbours."""

WIDEST_WINDOW = 100_000
DEFAULT_STRATEGY = "mdi-exit"

Share = Annotated[float, Field(ge=0, le=1)]


class Admission(BaseModel):
    """How a source paces admission; the window holds beside it.

    `window` admits whenever the window has room; `paced` is MDI-Exit's Algorithm 3. The constants are
    ours, from a sweep over simulated meshes of 1, 3 and 5 devices: the published text gives none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: Literal["window", "paced"] = "window"
    period_s: float = Field(0.05, gt=0, le=60, description="Seconds between two looks at the queues.")
    low: Count = Field(10, description="T_Q1: with fewer tasks queued at the source, admit much faster.")
    high: Count = Field(30, description="T_Q2: with fewer, admit a little faster; else slower.")
    much_shorter: float = Field(0.8, gt=0, lt=1, description="Factor on the interval below T_Q1.")
    little_shorter: float = Field(0.95, gt=0, lt=1, description="Factor on the interval below T_Q2.")
    longer: float = Field(1.05, gt=1, le=10, description="Factor on the interval from T_Q2 on.")
    first_interval_s: float = Field(0.02, gt=0, le=60, description="The interval to begin with.")
    least_interval_s: float = Field(0.0001, gt=0, le=60, description="Never shorter than this.")


class Adaptation(BaseModel):
    """Whether the coordinator moves the thresholds with the load.

    `fixed` leaves them; `adaptive` is MDI-Exit's Algorithm 4, which gives up accuracy for rate. The
    constants are ours: the published text gives none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: Literal["fixed", "adaptive"] = "fixed"
    period_s: float = Field(0.5, gt=0, le=3600, description="Seconds between two changes.")
    low: Count = Field(10, description="T_Q1: with fewer tasks queued at the source, become much surer.")
    high: Count = Field(30, description="T_Q2: with fewer, become a little surer; else less sure.")
    much_higher: float = Field(1.05, gt=1, le=10, description="Factor on thresholds below T_Q1.")
    little_higher: float = Field(1.01, gt=1, le=10, description="Factor on thresholds below T_Q2.")
    lower: float = Field(0.9, gt=0, lt=1, description="Factor on thresholds from T_Q2 on.")
    least: float = Field(0.4, ge=0, le=1, description="T_min: never less sure than this.")


class Planning(BaseModel):
    """What the planner is to reach, where the strategy plans.

    The constants are ours, from experiments (docs/experiments.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    goal: Literal["thresholds", "accuracy", "rate"] = Field(
        "thresholds",
        description="`thresholds`: the highest rate with the policy's thresholds; `accuracy`: the highest "
        "rate at that accuracy or more; `rate`: the highest accuracy at that rate or more.",
    )
    accuracy: float | None = Field(
        None, gt=0, le=1, description="Share of right answers to keep, on the trace."
    )
    rate: float | None = Field(None, gt=0, description="Frames a second to keep up with.")
    patience_s: float = Field(
        0.1,
        ge=0,
        le=60,
        description="A device whose expected wait is longer than another's by more than this is passed over.",
    )
    tasks_a_device: int = Field(
        8, ge=1, le=10_000, description="Frames that a source keeps admitted for each device,"
    )
    depth_s: float = Field(
        0.05, ge=0, le=60, description="and on top, those of so many seconds at the planned rate."
    )
    drift: float = Field(
        0.25, gt=0, le=10, description="Share by which a measured time or link must change to plan anew."
    )
    interval_s: float = Field(0.5, gt=0, le=3600, description="Seconds between two plans, at least.")
    time_limit_s: float = Field(2.0, gt=0, le=600, description="Seconds the solver may take.")
    loading_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds a device may take to load a stage before the plan is given up.",
    )

    @model_validator(mode="after")
    def _goal_is_given(self) -> Self:
        if self.goal != "thresholds" and getattr(self, self.goal) is None:
            raise ValueError(f"goal {self.goal} needs a value for {self.goal}")
        return self


class Policy(BaseModel):
    """Thresholds, placement and limits that all machines obey.

    The defaults are ours; the published text of MDI-Exit (arXiv 2408.05247) gives none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: int = Field(0, ge=0, le=LATEST_VERSION, description="Rises by one with each accepted change.")
    thresholds: Annotated[tuple[float, ...], Field(max_length=63)] = Field(
        description="One for each exit but the last: a frame leaves where score >= threshold."
    )
    placement: dict[Identifier, tuple[StageIndex, ...]] = Field(
        default_factory=dict,
        description="Stages by device; a device not named here keeps those it was started with.",
    )
    strategy: Identifier = Field(
        DEFAULT_STRATEGY,
        description="By which rules tasks are shared out; `mqtt-mdi policy strategies` lists them.",
    )
    planning: Planning = Planning()
    shares: dict[Identifier, dict[StageIndex, dict[Identifier, Share]]] = Field(
        default_factory=dict,
        description="The planner's: by device and stage, how much of what comes up there goes where.",
    )
    neighbours: dict[Identifier, tuple[Identifier, ...]] = Field(
        default_factory=dict,
        description="Devices that a device may send to; one not named here may send to all.",
    )
    output_threshold: Count = Field(
        8, description="T_O of MDI-Exit's Algorithm 1: with a longer output queue the task stays here."
    )
    queue_limit: int = Field(512, ge=1, le=100_000, description="Tasks an input or output queue holds.")
    window: int = Field(64, ge=1, le=WIDEST_WINDOW, description="Frames a source keeps admitted at once.")
    admission: Admission = Admission()
    adaptation: Adaptation = Adaptation()
    pending_limit: int = Field(
        1024,
        ge=0,
        le=1_000_000,
        description="Frames that may wait at a source for admission; more are refused.",
    )
    lease_s: float = Field(
        2.0, gt=0, le=3600, description="Seconds without an answer after which a frame is tried again."
    )
    max_attempts: int = Field(5, ge=1, le=100, description="Leases of a frame before it is answered failed.")
    report_interval_s: float = Field(
        0.1, gt=0, le=60, description="Seconds between a device's looks at whether its state changed."
    )
    silence_s: float = Field(3.0, gt=0, le=600, description="A device unheard for so long is taken for dead.")
    data_qos: Literal[0, 1] = Field(0, description="MQTT quality of service of frames between devices.")


def merge_patch(target: Any, patch: Any) -> Any:  # noqa: ANN401 -- any JSON value, as the RFC has it
    """Apply a JSON merge patch (RFC 7396, section 2) without touching `target`."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
