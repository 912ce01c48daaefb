"""What docs/experiments.md claims, on fewer frames: with one seed a run is the same again and again."""

from dataclasses import replace
from functools import cache

import pytest

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.experiments.compare import static_rates
from mqtt_mdi.experiments.contestants import (
    CONTESTANTS,
    DDI,
    LOCAL,
    MDI_EXIT,
    MDI_EXIT_SHIPPED,
    PLANNER,
    Contestant,
    choices,
    placements,
)
from mqtt_mdi.experiments.lab import Lab
from mqtt_mdi.experiments.measure import Run, Trial, bound, read_model, run
from mqtt_mdi.experiments.settings import Settings
from mqtt_mdi.experiments.systems import TOPOLOGIES, UNEVEN, groups
from mqtt_mdi.experiments.tuning import best_policy, with_policy
from mqtt_mdi.simulation.scenario import Scenario

MODEL = read_model(SHIPPED_BUNDLE)
FRAMES = 6000
MESH = TOPOLOGIES[-1]


def trial(
    system: Scenario, contestant: Contestant, number: int = 0, frames: int = FRAMES, seed: int = 1
) -> Trial:
    """A simulation of the contestant's choice of that number."""
    policy = choices(contestant, system, MODEL, quick=True)[number]
    return Trial(SHIPPED_BUNDLE, with_policy(system, policy, frames, seed))


@cache
def measured(system: str, contestant: str, number: int = 0) -> tuple[Run, float]:
    """A run and its efficiency."""
    scenario = next(each for each in (*TOPOLOGIES, UNEVEN) if each.name == system)
    chosen = trial(scenario, next(each for each in CONTESTANTS if each.name == contestant), number)
    done = run(chosen)
    return done, done.rate / bound(chosen, done.reach)


@pytest.mark.parametrize("system", [*TOPOLOGIES, UNEVEN], ids=lambda system: system.name)
def test_the_planner_comes_near_the_bound(system: Scenario) -> None:
    _, efficiency = measured(system.name, PLANNER.name)
    assert 0.95 <= efficiency <= 1.02


def test_ddi_is_as_good_where_all_devices_are_alike_and_linked() -> None:
    _, efficiency = measured(MESH.name, DDI.name)
    assert 0.95 <= efficiency <= 1.02


def test_on_the_uneven_five_the_planner_is_far_ahead_of_mdi_exit_at_the_same_accuracy() -> None:
    planned, _ = measured(UNEVEN.name, PLANNER.name)
    numbers = range(len(choices(MDI_EXIT, UNEVEN, MODEL, quick=True)))
    published = max((measured(UNEVEN.name, MDI_EXIT.name, n)[0] for n in numbers), key=lambda each: each.rate)
    assert planned.rate >= 1.3 * published.rate
    assert planned.accuracy == pytest.approx(published.accuracy, abs=0.003)


def test_mdi_exit_cannot_be_faster_than_its_source_with_stage_1() -> None:
    done, _ = measured(MESH.name, MDI_EXIT.name)
    chosen = trial(MESH, MDI_EXIT)
    at_source = bound(chosen, done.reach, stage_1_at_source=True)
    assert 0.95 <= done.rate / at_source <= 1.02
    assert at_source < 0.5 * bound(chosen, done.reach)


def test_one_seed_brings_one_run_in_any_process() -> None:
    trials = [trial(UNEVEN, PLANNER, frames=600, seed=seed) for seed in (1, 1, 2)]
    with Lab(Settings(SHIPPED_BUNDLE, SHIPPED_BUNDLE, jobs=2)) as lab:
        first, again, other = lab.run(trials, "thrice")
    assert first == again == run(trials[0])
    assert first != other


def test_devices_are_never_busier_than_all_the_time() -> None:
    done, _ = measured(UNEVEN.name, PLANNER.name)
    shares = {name: sum(stages) for name, stages in done.busy.items()}
    assert max(shares.values()) <= 1 + 1e-9
    assert min(shares.values()) >= 0.9


def test_nobody_plans_with_the_samples_that_it_is_judged_by() -> None:
    known = {sample.tobytes() for sample in MODEL.known.score}
    replayed = {sample.tobytes() for sample in MODEL.replayed.score}
    assert not known & replayed
    assert MODEL.shuffled(1).score.tolist() != MODEL.shuffled(2).score.tolist()


@pytest.mark.parametrize("system", [*TOPOLOGIES, UNEVEN], ids=lambda system: system.name)
@pytest.mark.parametrize("contestant", [MDI_EXIT, MDI_EXIT_SHIPPED], ids=lambda each: each.name)
def test_placements_fit_the_memory_and_keep_or_ship_frames(system: Scenario, contestant: Contestant) -> None:
    memory = {spec.id: spec.memory for spec in system.devices}
    sizes = [profile.memory for profile in MODEL.manifest.profiles]
    found = placements(contestant, system, MODEL)
    assert len(found) == len({repr(place) for place in found})
    assert bool(found) == (not contestant.ships or len(system.devices) > 1)
    for place in found:
        for name, stages in place.items():
            limit = memory[name]
            assert limit is None or sum(sizes[k - 1] for k in stages) <= limit
        assert (1 in place["node-1"]) == (not contestant.ships)
        assert {k for stages in place.values() for k in stages} == {1, 2, 3, 4}


def test_the_sweep_finds_the_best_and_drops_what_stands_still() -> None:
    windows = [{"strategy": "local", "lease_s": 60.0, "window": window} for window in (1, 16, 64)]
    settings = Settings(SHIPPED_BUNDLE, SHIPPED_BUNDLE)
    with Lab(settings) as lab:
        best = best_policy(lab, LOCAL, [TOPOLOGIES[0]], windows, lambda done: 1e6 - done.latency_p50_ms)
        none = best_policy(lab, LOCAL, [TOPOLOGIES[0]], [], lambda done: done.rate)
        nobody_has_3 = {spec.id: [1, 2] for spec in UNEVEN.devices}
        policy = {"strategy": "mdi-exit", "lease_s": 60.0, "placement": nobody_has_3}
        stuck = best_policy(lab, MDI_EXIT, [UNEVEN], [policy], lambda done: done.rate)
    assert best == windows[0]
    assert none is None
    assert stuck is None


def test_groups_do_not_know_each_other() -> None:
    system = groups(20)
    assert [spec.id for spec in system.devices if spec.source] == [f"node-{n}" for n in (1, 6, 11, 16)]
    assert len(system.edges()) == 4 * 5 * 4


def test_a_static_network_is_as_fast_as_its_multiply_adds_allow() -> None:
    macs = sum(stage.macs for stage in MODEL.manifest.stages)
    speeds = [spec.macs_per_second for spec in UNEVEN.devices]
    alone, together = static_rates(MODEL, replace_memory(UNEVEN))
    assert alone == pytest.approx(max(speeds) / macs, rel=1e-6)
    assert together == pytest.approx(sum(speeds) / macs, rel=1e-6)
    assert static_rates(MODEL, UNEVEN)[0] == pytest.approx(speeds[0] / macs, rel=1e-6), "only node-1 has room"
    assert measured("local", LOCAL.name)[0].rate > alone / 8


def replace_memory(system: Scenario) -> Scenario:
    """The same with memory for everything."""
    roomy = tuple(spec.model_copy(update={"memory": None}) for spec in system.devices)
    return system.model_copy(update={"devices": roomy})


def test_settings_repeat_and_shorten_quick_runs() -> None:
    usual = Settings(SHIPPED_BUNDLE, SHIPPED_BUNDLE)
    assert (list(usual.seeds), usual.frames_or(4000)) == ([1, 2, 3], 4000)
    quick = replace(usual, quick=True, seed=7)
    assert (list(quick.seeds), quick.frames_or(4000)) == ([7], 600)
    assert replace(quick, frames=900).frames_or(4000) == 900
