"""A scenario as the fluid bound sees it: no faults, no loss, no latency."""

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.planning.problem import Device, Problem
from mqtt_mdi.simulation.network import ENVELOPE_BYTES
from mqtt_mdi.simulation.scenario import Scenario
from mqtt_mdi.simulation.world import FRAME_BYTES


def problem_of(scenario: Scenario, manifest: Manifest, reach: tuple[float, ...]) -> Problem:
    """The problem whose bound no policy beats in a scenario.

    `reach` is the share of frames that reach each stage (`mqtt_mdi.planning.reach`). Raw frames may be
    shipped, and the sources may share the frames out between them as suits best.

    Raises ConfigError when `reach` or the scenario's stages do not fit the bundle.
    """
    every = range(1, manifest.stage_count + 1)
    sizes = (FRAME_BYTES, *(stage.activation_bytes for stage in manifest.stages[:-1]))
    return Problem(
        devices=tuple(
            Device(
                spec.id,
                tuple(stage.macs / spec.macs_per_second for stage in manifest.stages),
                stages=frozenset(every if spec.stages == "all" else spec.stages),
            )
            for spec in scenario.devices
        ),
        sources=tuple(spec.id for spec in scenario.devices if spec.source),
        reach=reach,
        input_bytes=tuple(float(size + ENVELOPE_BYTES) for size in sizes),
        stage_bytes=tuple(float(stage.graph_bytes) for stage in manifest.stages),
        links={pair: link.bandwidth_mbit * 1e6 / 8 for pair, link in scenario.edges().items()},
    )
