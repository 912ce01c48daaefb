"""Whether a policy that is well formed fits the network it is for."""

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.strategies.registry import STRATEGIES


def misfit(policy: Policy, stage_count: int) -> str | None:
    """Why a policy cannot be obeyed with a network of `stage_count` stages, or None."""
    early = stage_count - 1
    if len(policy.thresholds) != early:
        return f"thresholds: {len(policy.thresholds)} values, this network has {early} early exits"
    if policy.strategy not in STRATEGIES:
        return f"strategy: {policy.strategy} is not one of {', '.join(STRATEGIES)}"
    for device, stages in policy.placement.items():
        if strange := [stage for stage in stages if stage > stage_count]:
            return f"placement.{device}: stages {strange}, this network has {stage_count}"
    outside = [threshold for threshold in policy.thresholds if not 0 <= threshold <= 1]
    if policy.adaptation.rule == "adaptive" and outside:
        return f"adaptation.rule: adaptive needs thresholds from 0 to 1, got {outside}"
    return None
