"""`experiment scale`: what simulating ten to ten thousand devices takes."""

import time
from collections.abc import Sequence

from mqtt_mdi.experiments import figures
from mqtt_mdi.experiments.contestants import COMMON, DDI, MDI_EXIT, Contestant
from mqtt_mdi.experiments.findings import Findings
from mqtt_mdi.experiments.measure import Trial, bound, read_model
from mqtt_mdi.experiments.rows import Cost
from mqtt_mdi.experiments.settings import Settings
from mqtt_mdi.experiments.systems import groups
from mqtt_mdi.experiments.tables import Cells, rounded
from mqtt_mdi.planning.reach import reach_shares
from mqtt_mdi.simulation.compute import network_of
from mqtt_mdi.simulation.scenario import Arrivals
from mqtt_mdi.simulation.world import World

SIZES = (10, 100, 1_000, 10_000)
FRAMES_A_DEVICE = 16
LEAST_FRAMES = 2000
LOAD = 0.6
"""Frames that arrive, as a share of λ*."""


def experiment(settings: Settings) -> Findings:
    """Groups of five devices, one after the other, nothing beside them."""
    sizes = SIZES[:2] if settings.quick else SIZES
    rows = rounded(measured(settings, count, each) for count in sizes for each in (MDI_EXIT, DDI))
    return Findings(
        csv={"scale": rows}, tables={"scale": costs(rows)}, figures={"scale": figures.costs(rows)}
    )


def measured(settings: Settings, count: int, contestant: Contestant) -> Cost:
    """Set up and run one simulation."""
    model = read_model(settings.bundle)
    system = groups(count)
    group = Trial(settings.bundle, groups(5))
    rate = LOAD * count / 5 * bound(group, reach_shares(model.replayed, model.manifest.thresholds))
    frames = settings.frames_or(max(LEAST_FRAMES, FRAMES_A_DEVICE * count))
    scenario = system.model_copy(
        update={
            "arrivals": Arrivals(kind="poisson", rate=rate),
            "frames": frames,
            "seed": settings.seed,
            "policy": {**COMMON, "strategy": contestant.strategy},
        }
    )
    network = network_of(model.manifest, model.shuffled(settings.seed), None)
    begin = time.perf_counter()
    world = World(scenario, network)
    ready, spent = time.perf_counter(), time.process_time()
    report = world.run()
    cpu = time.process_time() - spent
    return Cost(
        devices=count,
        strategy=contestant.name,
        frames=frames,
        answered=report.answered,
        virtual_s=report.seconds,
        events=report.events,
        setup_s=ready - begin,
        wall_s=time.perf_counter() - ready,
        cpu_s=cpu,
        us_an_event=1e6 * cpu / report.events,
        us_a_frame=1e6 * cpu / frames,
    )


def costs(rows: Sequence[Cost]) -> Cells:
    """What each simulation took."""
    return [
        {
            "devices": f"{row.devices:,}",
            "strategy": row.strategy,
            "frames answered": f"{row.answered:,} of {row.frames:,}",
            "events": f"{row.events:,}",
            "set-up": f"{row.setup_s:.2f} s",
            "wall": f"{row.wall_s:.2f} s",
            "CPU an event": f"{row.us_an_event:.1f} µs",
            "CPU a frame": f"{row.us_a_frame:.0f} µs",
        }
        for row in rows
    ]
