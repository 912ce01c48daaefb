"""The policy: every constant of the running system, versioned, published retained."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mqtt_mdi.core.types import Count, Identifier, StageIndex


class Policy(BaseModel):
    """Thresholds, placement and limits that all machines obey.

    The defaults are ours; the published text of MDI-Exit (arXiv 2408.05247) gives none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Count = Field(0, description="Rises by one with each accepted change.")
    thresholds: Annotated[tuple[float, ...], Field(max_length=63)] = Field(
        description="One for each exit but the last: a frame leaves where score >= threshold."
    )
    placement: dict[Identifier, tuple[StageIndex, ...]] = Field(
        default_factory=dict,
        description="Stages by device; a device not named here keeps those it was started with.",
    )
    output_threshold: Count = Field(
        8, description="T_O of MDI-Exit's Algorithm 1: with a longer output queue the task stays here."
    )
    queue_limit: int = Field(512, ge=1, le=100_000, description="Tasks an input or output queue holds.")
    window: int = Field(64, ge=1, le=100_000, description="Frames a source keeps admitted at once.")
    pending_limit: Count = Field(
        1024, le=1_000_000, description="Frames that may wait at a source for admission; more are refused."
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
