from pathlib import Path

import pytest
from click.testing import CliRunner

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.cli.inspect import inspect
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.experiments.tradeoff import tradeoff

STATIC = SHIPPED_BUNDLE.with_name("fashion-mnist-static")


def test_exits_and_thresholds_of_the_shipped_bundle() -> None:
    manifest = read_manifest(SHIPPED_BUNDLE)
    found = tradeoff(SHIPPED_BUNDLE)
    assert [accuracy for _, accuracy in found.exits] == pytest.approx(manifest.exit_accuracy)
    assert found.exits[-1][0] == sum(stage.macs for stage in manifest.stages)
    assert found.chosen == (
        manifest.operating_point.macs_share * manifest.full_macs,
        manifest.operating_point.accuracy,
    )
    costs = [macs for macs, _ in found.curve]
    assert len(costs) > 10
    assert min(costs) < found.chosen[0] < max(costs)
    # Thresholds save work that no single exit saves: at the third exit's accuracy, within noise, for less.
    third = found.exits[2]
    assert any(macs < 0.5 * third[0] and accuracy > third[1] - 0.005 for macs, accuracy in found.curve)


def test_a_network_without_early_exits_is_a_point() -> None:
    found = tradeoff(STATIC)
    assert len(found.exits) == 1
    assert len(found.curve) == 1


def test_drawing_beside_a_static_network(tmp_path: Path) -> None:
    path = tmp_path / "tradeoff.svg"
    done = CliRunner().invoke(
        inspect, ["--figure", str(path), "--beside", str(STATIC)], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "fashion-mnist-static" in path.read_text()
    assert path.with_suffix(".png").stat().st_size > 1000


def test_beside_needs_a_figure() -> None:
    with pytest.raises(ConfigError, match="name its file with --figure"):
        CliRunner().invoke(inspect, ["--beside", str(STATIC)], catch_exceptions=False)
