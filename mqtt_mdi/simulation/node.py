"""A simulated device, and what a scenario says it begins with."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mqtt_mdi.core.policy import Policy, merge_patch
from mqtt_mdi.core.source import Source
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.worker import Worker
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.simulation.compute import Network
from mqtt_mdi.simulation.network import Channel
from mqtt_mdi.simulation.scenario import DeviceSpec, Scenario


@dataclass
class Node:
    """A device: its machines while it lives, what it loads, and what its timers are set to.

    `stages` are those it is started with, `wanted` those it is to hold by the policy in force here;
    `seconds` is what each stage takes.
    """

    spec: DeviceSpec
    stages: frozenset[int]
    seconds: list[float]
    worker: Worker
    source: Source | None
    wanted: frozenset[int] = frozenset()
    boot: int = 0
    alive: bool = True
    channels: dict[str, Channel] = field(default_factory=dict)
    timers: dict[str, float] = field(default_factory=dict)


def stages_of(spec: DeviceSpec, network: Network) -> frozenset[int]:
    """The stages that a device is started with; ConfigError when the network has no such stages."""
    if spec.stages == "all":
        return frozenset(range(1, network.stage_count + 1))
    if strange := sorted(k for k in spec.stages if k > network.stage_count):
        raise ConfigError(f"devices.{spec.id}.stages: {strange}, the network has {network.stage_count}")
    return frozenset(spec.stages)


def is_laid_out(policy: Policy) -> bool:
    """Whether a policy or its strategy says where stages go, whatever devices are started with."""
    strategy = STRATEGIES[policy.strategy]
    return strategy.planned or strategy.arrange is not None or bool(policy.placement)


def check_stages(nodes: Iterable[Node], policy: Policy, network: Network) -> None:
    """ConfigError when a stage is nobody's or has no room, where nothing else lays stages out."""
    if is_laid_out(policy):
        return
    held = set[int]()
    for node in nodes:
        held |= node.stages
        needed, memory = sum(network.profiles[k - 1].memory for k in node.stages), node.spec.memory
        if memory is not None and needed > memory:
            raise ConfigError(
                f"devices.{node.spec.id}.stages: {sorted(node.stages)} need {needed} bytes, its memory is "
                f"{memory}: {needed - memory} bytes short"
            )
    if missing := sorted(set(range(1, network.stage_count + 1)) - held):
        raise ConfigError(f"devices: nobody holds stage {', '.join(map(str, missing))}")


def first_policy(scenario: Scenario, network: Network) -> Policy:
    """The scenario's policy on the network's thresholds and the topology's neighbours."""
    defaults = Policy(version=1, thresholds=network.thresholds).model_dump(mode="json")
    try:
        return Policy.model_validate(merge_patch(defaults, scenario.policy_patch()))
    except ValueError as error:
        raise ConfigError(f"policy: {error}") from error
