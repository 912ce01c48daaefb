from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, Manifest, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.trace import ExitTrace, read_trace
from mqtt_mdi.datasets.labelled import Dataset, Labelled
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.export.assemble import Evaluation, StageGraph
from mqtt_mdi.export.convert import Encoding, convert_bundle, convert_graphs, evaluation_of
from mqtt_mdi.export.timing import stage_times
from mqtt_mdi.wire.tensors import decode_tensor, encode_tensor

SHIPPED = read_manifest(SHIPPED_BUNDLE)
SAMPLE = read_sample(SHIPPED_BUNDLE)
HALF = len(SAMPLE.labels) // 2


def labelled(chosen: slice) -> Labelled:
    return Labelled(SAMPLE.pictures[chosen, None].copy(), SAMPLE.labels[chosen].astype(np.int64))


DATA = Dataset(labelled(slice(0, HALF)), labelled(slice(HALF, None)), SHIPPED.classes)
ROWS = SAMPLE.indices[HALF:]


def evaluation(data: Dataset = DATA, held_out: int | None = 200) -> Evaluation:
    return evaluation_of(SHIPPED, data, held_out, 0.01)


@dataclass
class Converted:
    folder: Path
    manifest: Manifest
    trace: ExitTrace


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[Encoding, Converted]:
    found = {}
    for encoding in (Encoding("float16"), Encoding("int8"), Encoding("int8", "int8")):
        folder = tmp_path_factory.mktemp("bundle")
        manifest = convert_bundle(SHIPPED_BUNDLE, folder, encoding, evaluation(), lambda _: None)
        found[encoding] = Converted(folder, manifest, read_trace(folder))
    return found


@pytest.mark.parametrize(
    ("encoding", "fewer", "same_labels", "score_off"),
    [
        (Encoding("float16"), 2, 0.998, 0.01),
        (Encoding("int8"), 4, 0.99, 0.1),
        (Encoding("int8", "int8"), 4, 0.96, 0.3),
    ],
)
def test_a_converted_bundle_answers_like_the_original(
    converted: dict[Encoding, Converted],
    encoding: Encoding,
    fewer: int,
    same_labels: float,
    score_off: float,
) -> None:
    bundle = converted[encoding]
    before = read_trace(SHIPPED_BUNDLE)
    assert read_manifest(bundle.folder) == bundle.manifest
    for spec, plain in zip(bundle.manifest.stages, SHIPPED.stages, strict=True):
        assert spec.activation_bytes * fewer == plain.activation_bytes
        assert (spec.macs, spec.exit_macs, spec.temperature) == (
            plain.macs, plain.exit_macs, plain.temperature,
        )  # fmt: skip
    assert (bundle.trace.label == before.label[ROWS]).mean(axis=0).min() >= same_labels
    assert np.quantile(np.abs(bundle.trace.score - before.score[ROWS]), 0.99) <= score_off
    accuracy = np.equal(before.label[ROWS], before.truth[ROWS, None]).mean(axis=0)
    np.testing.assert_allclose(bundle.manifest.exit_accuracy, accuracy, atol=0.012)


def test_what_is_sent_has_the_size_and_type_that_the_manifest_says(
    converted: dict[Encoding, Converted],
) -> None:
    for encoding, bundle in converted.items():
        first, second = bundle.manifest.stages[:2]
        picture = (DATA.test.pictures[:1].astype(np.float32) / 255 - 0.286) / 0.353
        sent = OnnxStage(read_stage(bundle.folder, first), first).run(picture).activation
        assert sent is not None
        assert sent.dtype.name == encoding.wire
        message = encode_tensor(sent)
        assert first.activation_bytes <= len(message) <= first.activation_bytes + 20
        received = decode_tensor(message)
        assert OnnxStage(read_stage(bundle.folder, second), second).run(received).labels.shape == (1,)


def test_int8_arithmetic_makes_large_graphs_smaller(converted: dict[Encoding, Converted]) -> None:
    last, plain = converted[Encoding("int8", "int8")].manifest.stages[-1], SHIPPED.stages[-1]
    assert last.graph_bytes < 0.65 * plain.graph_bytes


def test_what_comes_along(converted: dict[Encoding, Converted]) -> None:
    for encoding, bundle in converted.items():
        recipe = bundle.manifest.trained.recipe
        new = {"wire": encoding.wire, "compute": encoding.compute, "held_out": 200}
        assert recipe == SHIPPED.trained.recipe | new
        assert (bundle.folder / "LICENSE").read_bytes() == (SHIPPED_BUNDLE / "LICENSE").read_bytes()
        assert (bundle.folder / "weights.safetensors").exists() == (encoding.compute == "float32")
        # Its indices are rows of another test set.
        assert not (bundle.folder / "sample.npz").exists()


def test_a_converted_bundle_is_not_converted_again(
    converted: dict[Encoding, Converted], tmp_path: Path
) -> None:
    for bundle in converted.values():
        with pytest.raises(BundleError, match="stage 1 is converted already: it takes float32 and sends"):
            convert_bundle(bundle.folder, tmp_path, Encoding("int8"), evaluation(), lambda _: None)
    computing = tmp_path / "computing"
    convert_bundle(SHIPPED_BUNDLE, computing, Encoding(compute="int8"), evaluation(), lambda _: None)
    with pytest.raises(BundleError, match="it computes in int8"):
        convert_bundle(computing, tmp_path, Encoding("int8"), evaluation(), lambda _: None)


def test_a_bundle_is_not_converted_in_place() -> None:
    with pytest.raises(ConfigError, match="is the bundle itself"):
        convert_bundle(SHIPPED_BUNDLE, SHIPPED_BUNDLE, Encoding("int8"), evaluation(), lambda _: None)


def test_a_single_stage_sends_nothing(tmp_path: Path) -> None:
    single = SHIPPED_BUNDLE.parent / "fashion-mnist-static"
    with pytest.raises(ConfigError, match="has one stage, which sends nothing"):
        convert_bundle(single, tmp_path, Encoding("int8", "int8"), evaluation(), lambda _: None)


def test_no_more_is_held_out_than_was() -> None:
    with pytest.raises(ConfigError, match="--hold-out 2001: 2000 were held out"):
        evaluation(held_out=2001)


def test_data_that_the_bundle_was_not_trained_on() -> None:
    coloured = DATA.test.pictures.repeat(3, axis=1)
    with pytest.raises(ConfigError, match=r"pictures \(3, 28, 28\) of 10 .* takes \(1, 28, 28\)"):
        evaluation(replace(DATA, test=Labelled(coloured, DATA.test.labels)))
    with pytest.raises(ConfigError, match="of 2 classes"):
        evaluation(replace(DATA, class_names=("cat", "dog")))


def test_ranges_are_taken_from_pictures_of_all_classes() -> None:
    """Pictures by class lie class by class, and here the first 500 are black."""
    pictures = np.concatenate([np.zeros((500, 1, 28, 28), np.uint8), DATA.train.pictures[:100]])
    held_out = Labelled(pictures, np.repeat([0, 1], [500, 100]))
    graphs = [StageGraph(read_stage(SHIPPED_BUNDLE, spec), spec.temperature) for spec in SHIPPED.stages]
    converted = convert_graphs(graphs, Encoding("int8"), replace(evaluation(), held_out=held_out))
    stored = onnx.load_from_string(converted[0].graph).graph.initializer
    (scale,) = (numpy_helper.to_array(tensor) for tensor in stored if tensor.name == "sent.scale")
    lit = OnnxStage(graphs[0].graph, SHIPPED.stages[0]).run(
        evaluation().normalise(torch.from_numpy(pictures[-20:])).numpy()
    )
    assert lit.activation is not None
    spans = np.ptp(np.moveaxis(lit.activation, 1, 0).reshape(len(scale), -1), axis=1)
    assert (255 * scale > 0.6 * spans).all()


def test_ranges_need_pictures_held_out() -> None:
    for count in (0, HALF, None):  # the recipe's 2,000 are more than there are
        with pytest.raises(ConfigError, match="choose 1 to 499 of the training pictures"):
            evaluation(held_out=count)
    recipe = {name: v for name, v in SHIPPED.trained.recipe.items() if name != "held_out"}
    unknown = SHIPPED.model_copy(update={"trained": SHIPPED.trained.model_copy(update={"recipe": recipe})})
    with pytest.raises(ConfigError, match="--hold-out"):
        evaluation_of(unknown, DATA, None, 0.01)


def test_times_are_measured_stage_by_stage(converted: dict[Encoding, Converted]) -> None:
    times = stage_times([SHIPPED_BUNDLE, converted[Encoding("int8")].folder], 3)
    assert times.shape == (3, 2, 4)
    assert (times > 0).all()
    with pytest.raises(ConfigError, match="nothing to compare"):
        stage_times([SHIPPED_BUNDLE, SHIPPED_BUNDLE.with_name("fashion-mnist-static")], 3)
