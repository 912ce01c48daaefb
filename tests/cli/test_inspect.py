import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.cli.inspect import inspect
from mqtt_mdi.errors import BundleError, ConfigError


def run(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(inspect, arguments, env=env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_shipped_bundle_by_default() -> None:
    manifest = read_manifest(SHIPPED_BUNDLE)
    output = run()
    for accuracy in manifest.exit_accuracy:
        assert f"{accuracy:.2%}" in output
    assert f"{manifest.operating_point.macs_share:.1%}" in output
    assert "…" not in output


BUNDLES = sorted((Path(__file__).parents[2] / "benchmarks" / "bundles").glob("*/manifest.json"))


@pytest.mark.parametrize("manifest", BUNDLES, ids=lambda path: path.parent.name)
def test_the_bundles_of_the_experiments_are_whole_and_fit_a_terminal(manifest: Path) -> None:
    output = run(str(manifest.parent))
    assert f"{read_manifest(manifest.parent).exit_accuracy[-1]:.2%}" in output
    assert "…" not in output


def test_json_replays_the_thresholds_of_the_bundle() -> None:
    manifest = read_manifest(SHIPPED_BUNDLE)
    found = json.loads(run("--json"))
    assert found["accuracy"] == manifest.operating_point.accuracy
    assert found["mean_macs_share"] == manifest.operating_point.macs_share
    assert found["full_accuracy"] == pytest.approx(manifest.exit_accuracy[-1])
    assert [stage["stage"] for stage in found["stages"]] == [1, 2, 3, 4]


def test_other_thresholds_move_the_exit_shares() -> None:
    never = json.loads(run("--json", "--thresholds", "2,2,2"))
    assert never["exits"] == [0, 0, 0, 1]
    assert never["accuracy"] == never["full_accuracy"]
    always = json.loads(run("--json", "--thresholds", "0,0,0"))
    assert always["exits"] == [1, 0, 0, 0]
    assert always["mean_macs_share"] < 0.2


def test_thresholds_that_cannot_be_read_or_do_not_fit() -> None:
    result = CliRunner().invoke(inspect, ["--thresholds", "high"])
    assert result.exit_code == 2
    assert "not a list of numbers such as 0.9,0.9,0.9" in result.output
    with pytest.raises(ConfigError, match="4 exits need 3 thresholds, not 1"):
        run("--thresholds", "0.5")


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, folder)
    assert "10,000 test pictures" in run(env={"MDI_BUNDLE": str(folder)})
    (folder / "stage-3.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="wrong hash"):
        run(str(folder))
    (folder / "manifest.json").unlink()
    with pytest.raises(BundleError, match="no bundle at"):
        run(str(folder))
