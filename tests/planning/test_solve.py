"""What a planner looks at, and what it does not."""

import shutil
from pathlib import Path

import pytest

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.trace import HELD_OUT_FILE, TRACE_FILE
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Member, StageProfile, System
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.solve import solver

POLICY = Policy.model_validate(
    {
        "version": 1,
        "thresholds": read_manifest(SHIPPED_BUNDLE).thresholds,
        "planning": {"goal": "accuracy", "accuracy": 0.925},
    }
)
ALONE = System(
    (Member("board", (0.01, 0.01, 0.03, 0.03), source=True, stages=frozenset({1, 2, 3, 4})),),
    {},
    tuple(StageProfile(stage.macs, 1000, 1000) for stage in read_manifest(SHIPPED_BUNDLE).stages),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_BUNDLE, tmp_path / "bundle"))


def test_plans_are_found_without_the_test_samples(bundle: Path) -> None:
    (bundle / TRACE_FILE).unlink()
    found = solver(bundle)(ALONE, POLICY)
    assert found.thresholds != POLICY.thresholds
    assert found.rate > 0


def test_a_bundle_without_the_samples_held_out_cannot_be_planned_for(bundle: Path) -> None:
    (bundle / HELD_OUT_FILE).unlink()
    with pytest.raises(ConfigError, match=r"samples held out: .*held-out\.npz"):
        solver(bundle)(ALONE, POLICY)
