import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from live import Broker, Pipeline
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.trace import read_trace, replay
from mqtt_mdi.cli.learning import learned_from
from mqtt_mdi.cli.main import cli
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.wire.frames import encode_png

SAMPLE = read_sample(SHIPPED_BUNDLE)
HALF = len(SAMPLE.labels) // 2
SHIPPED = str(SHIPPED_BUNDLE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped sample as files of the real data set: half to learn from, half to report on."""
    folder = tmp_path_factory.mktemp("data")

    def write(name: str, kind: int, values: NDArray[np.uint8]) -> None:
        header = b"".join(n.to_bytes(4, "big") for n in (kind, *values.shape))
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes(), 1))

    for part, chosen in (("train", slice(0, HALF)), ("t10k", slice(HALF, None))):
        write(f"{part}-images-idx3", 2051, SAMPLE.pictures[chosen])
        write(f"{part}-labels-idx1", 2049, SAMPLE.labels[chosen].astype(np.uint8))
    return folder


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def int8(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bundle, converted from the command line."""
    out = tmp_path_factory.mktemp("int8") / "int8"
    options = ("--wire", "int8", "--data", str(data), "--hold-out", "200", "--out", str(out))
    said = run("convert", SHIPPED, *options)
    assert "bundle written to" in said
    assert "fashion-mnist" in said
    for expected in ("12,544", "3,136", "4x", "2,352"):
        assert expected in said
    return out


def test_devices_answer_with_int8_on_the_wire(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline], int8: Path
) -> None:
    pipeline, trace, manifest = new_pipeline(mosquitto), read_trace(int8), read_manifest(int8)
    pipeline.device("device-1", "1,2")
    pipeline.device("device-2", "3,4")
    pipeline.source()
    pipeline.coordinator("--bundle", str(int8))
    pipeline.ready("device-1", 1, 2)
    pipeline.ready("device-2", 3, 4)
    pipeline.ready("source-1")
    exits = replay(trace, manifest.thresholds)
    surest = np.abs(trace.score[:, :-1] - np.asarray(manifest.thresholds)).min(axis=1)
    late = np.flatnonzero((exits > 2) & (surest > 0.01))[:5]
    assert len(late)
    for row in late:
        pipeline.send(f"camera-{row}", encode_png(SAMPLE.pictures[HALF + row]).data)
    for row in late:
        (answer,) = pipeline.answers(f"camera-{row}", 1)
        exit_stage = int(exits[row])
        assert (answer["exit_stage"], answer["label"]) == (exit_stage, trace.label[row, exit_stage - 1])


def test_a_bottleneck_sends_a_sixteenth(data: Path, int8: Path, tmp_path: Path) -> None:
    # The recipe of the shipped bundle holds out more than there is here.
    bundle, out = tmp_path / "small", tmp_path / "short"
    bundle.mkdir()
    for path in SHIPPED_BUNDLE.iterdir():
        (bundle / path.name).write_bytes(path.read_bytes())
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"held_out": 2000', '"held_out": 440'))
    options = ("--data", str(data), "--epochs", "1", "--batch", "30", "--threads", "1", "--device", "cpu")
    said = run("bottleneck", str(bundle), "--out", str(out), *options)
    assert "784" in said
    assert "16x" in said
    shortened, shipped = read_manifest(out), read_manifest(SHIPPED_BUNDLE)
    for spec, plain in zip(shortened.stages[:-1], shipped.stages[:-1], strict=True):
        assert 0 < spec.activation_bytes * 16 <= plain.activation_bytes
        assert spec.output_type == "int8"
    assert shortened.trained.recipe["bottleneck"] == 16
    # The first exit is ahead of every bottleneck.
    assert shortened.exit_accuracy[0] == pytest.approx(read_manifest(int8).exit_accuracy[0], abs=0.005)

    compared = run("compare", SHIPPED, str(int8), str(out), "--rounds", "3")
    assert all(word in compared for word in ("fashion-mnist", "int8", "short", "16.3x"))
    with pytest.raises(BundleError, match="bottlenecks already"):
        run("bottleneck", str(out), "--out", str(tmp_path / "shorter"), *options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), ConfigError, "nothing to convert"),
        (("--wire", "int8", "--hold-out", "0"), ConfigError, "--hold-out 0: choose 1 to 499"),
        (("--wire", "int8"), ConfigError, "--hold-out 2000: choose 1 to 499"),
        (("--wire", "int8", "--data", "/nowhere"), ConfigError, "no folder /nowhere"),
        (("--wire", "int8", "--dataset", "cifar10"), ConfigError, "lacks data_batch_1"),
        (("--wire", "int8", "--out", "/proc/nothing/here"), ConfigError, "cannot write to --out"),
    ],
)
def test_wrong_choices_are_explained(
    data: Path, tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run("convert", SHIPPED, "--out", str(tmp_path / "out"), "--data", str(data), *arguments)


def test_wrong_bundles_are_explained(data: Path, int8: Path, tmp_path: Path) -> None:
    options = ("--wire", "float16", "--data", str(data), "--hold-out", "200", "--out", str(tmp_path / "out"))
    with pytest.raises(BundleError, match=r"stage 1 is converted already: .* sends int8"):
        run("convert", str(int8), *options)
    shipped = read_manifest(SHIPPED_BUNDLE)
    own = shipped.model_copy(update={"trained": shipped.trained.model_copy(update={"dataset": "mine"})})
    with pytest.raises(ConfigError, match=r"trained on 'mine', .* say --dataset and --data"):
        learned_from(own, None, data)
    with pytest.raises(BundleError, match="no bundle at"):
        run("convert", str(tmp_path / "none"), *options)
    static = SHIPPED_BUNDLE.with_name("fashion-mnist-static")
    with pytest.raises(BundleError, match="cannot be trained on"):
        run("bottleneck", str(static), "--data", str(data), "--out", str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="choose 1 to 499"):
        run("bottleneck", SHIPPED, "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu")
