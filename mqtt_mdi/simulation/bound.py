"""A scenario as the fluid bound sees it: no faults, no loss, no latency."""

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.core.system import ENVELOPE_BYTES
from mqtt_mdi.planning.problem import Device, Problem
from mqtt_mdi.simulation.scenario import Scenario


def problem_of(
    scenario: Scenario, manifest: Manifest, reach: tuple[float, ...], *, placed_freely: bool = False
) -> Problem:
    """The problem whose bound no policy beats in a scenario.

    `reach` is the share of frames that reach each stage (`mqtt_mdi.planning.reach`). Raw frames may be
    shipped, and the sources may share the frames out between them as suits best. Stages are where the
    scenario has them, or `placed_freely` wherever there is memory.

    Raises ConfigError when `reach` or the scenario's stages do not fit the bundle.
    """
    every = range(1, manifest.stage_count + 1)
    return Problem(
        devices=tuple(
            Device(
                spec.id,
                tuple(stage.macs / spec.macs_per_second for stage in manifest.stages),
                memory=spec.memory,
                stages=None if placed_freely else frozenset(every if spec.stages == "all" else spec.stages),
            )
            for spec in scenario.devices
        ),
        sources=tuple(spec.id for spec in scenario.devices if spec.source),
        reach=reach,
        input_bytes=_input_bytes(scenario, manifest),
        stage_bytes=tuple(float(profile.memory) for profile in manifest.profiles),
        links={pair: link.bandwidth_mbit * 1e6 / 8 for pair, link in scenario.edges().items()},
    )


def _input_bytes(scenario: Scenario, manifest: Manifest) -> tuple[float, ...]:
    sizes = [float(profile.input_bytes) for profile in manifest.profiles]
    if scenario.frame_bytes is not None:
        sizes[0] = float(scenario.frame_bytes + ENVELOPE_BYTES)
    return tuple(sizes)
