from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mqtt_mdi.bundle.manifest import Manifest, Training, read_manifest
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.thresholds import choose_thresholds
from mqtt_mdi.bundle.trace import HELD_OUT_FILE, operating_point, read_trace
from mqtt_mdi.bundle.written import WEIGHTS_FILE
from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.export.assemble import Evaluation
from mqtt_mdi.export.cost import cost_of
from mqtt_mdi.export.graph import stage_graph
from mqtt_mdi.export.model import export_bundle
from mqtt_mdi.models.mobilenetv2 import MobileNetV2, MobileNetV2Config
from mqtt_mdi.models.stage import GlobalPool, Stage

NORMALISE = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
TRAINING = Training(recipe={"epochs": 0}, dataset="noise", samples=1, seed=1, version="0")


@dataclass
class Exported:
    folder: Path
    manifest: Manifest
    model: Any
    test: Labelled


def noise(samples: int, seed: int) -> Labelled:
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 256, (samples, 3, 20, 16), np.uint8)
    return Labelled(pictures, generator.integers(0, 3, samples))


def untrained() -> MobileNetV2:
    """A model with lively batch normalisation, so that folding it away is put to the test."""
    torch.manual_seed(2)
    model = MobileNetV2(MobileNetV2Config(classes=3, width=0.125, last_channels=80))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.5)
            nn.init.normal_(module.running_mean, 0, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, model, test = tmp_path_factory.mktemp("bundle"), untrained(), noise(150, 1)
    manifest = export_bundle(
        model,
        folder,
        "noise",
        Evaluation(("a", "b", "c"), NORMALISE, noise(60, 2), test, 0.01),
        TRAINING,
    )
    return Exported(folder, manifest, model, test)


def test_the_bundle_reads_as_it_was_written(exported: Exported) -> None:
    assert read_manifest(exported.folder) == exported.manifest
    trace = read_trace(exported.folder)
    np.testing.assert_array_equal(trace.truth, exported.test.labels)
    shares = exported.manifest.macs_shares
    assert operating_point(trace, exported.manifest.thresholds, shares) == exported.manifest.operating_point
    held_out = read_trace(exported.folder, HELD_OUT_FILE)
    assert choose_thresholds(held_out, shares, 0.01) == exported.manifest.thresholds
    assert exported.manifest.exit_accuracy == pytest.approx(trace.correct.mean(axis=0).tolist())


def test_engine_and_torch_agree_with_the_weights_that_ship(exported: Exported) -> None:
    model = untrained()
    model.load_state_dict(load_file(exported.folder / WEIGHTS_FILE))
    x = NORMALISE(torch.from_numpy(exported.test.pictures[:7]))
    inputs = x.numpy()
    for spec, stage in zip(exported.manifest.stages, model.stages(), strict=True):
        output = OnnxStage(read_stage(exported.folder, spec), spec).run(inputs)
        with torch.no_grad():
            x, logits = stage(x)
        score = torch.softmax(logits / spec.temperature, 1).amax(1).numpy()
        np.testing.assert_allclose(output.scores, score, atol=0.01)
        assert (output.labels == logits.argmax(1).numpy()).mean() > 0.8
        if output.activation is not None:
            assert output.activation.shape == (7, *(spec.output_shape or ()))
            np.testing.assert_allclose(output.activation, x.numpy(), atol=0.05)
            inputs = output.activation


def test_weights_ship_rounded_under_their_own_names(exported: Exported) -> None:
    weights = load_file(exported.folder / WEIGHTS_FILE)
    state = exported.model.state_dict()
    assert weights.keys() == state.keys()
    for name, value in weights.items():
        assert value.dtype == (torch.float16 if value.ndim > 1 else state[name].dtype)
        assert torch.allclose(value.to(state[name].dtype), state[name], rtol=1e-3, atol=1e-6)


def test_graphs_are_folded_halved_and_tell_nothing_of_the_machine(exported: Exported) -> None:
    for spec in exported.manifest.stages:
        data = read_stage(exported.folder, spec)
        graph = onnx.load_from_string(data).graph
        operators = {node.op_type for node in graph.node}
        assert "BatchNormalization" not in operators
        large = {t.data_type for t in graph.initializer if len(t.dims) > 1}
        assert large == {onnx.TensorProto.FLOAT16}
        assert b"site-packages" not in data
        assert b".py" not in data
        assert spec.graph_bytes == len(data)


def test_costs_are_those_of_the_layers(exported: Exported) -> None:
    specs, stages = exported.manifest.stages, exported.model.stages()
    x = NORMALISE(torch.from_numpy(exported.test.pictures[:1]))
    for spec, stage in zip(specs, stages, strict=True):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            x, _ = stage(x)
        assert spec.macs == counter.get_total_flops() // 2
        layers = [m for m in stage.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        # Batch normalisation is folded into the biases.
        assert spec.params == sum(m.weight.numel() + len(m.weight) for m in layers)
    first = specs[0].exit_macs
    channels, height, width = specs[0].output_shape or (0, 0, 0)
    hidden = max(64, 2 * channels)
    assert first == channels * hidden * height * width + 3 * hidden
    assert specs[-1].exit_macs == 3 * exported.model.config.last_channels


class Windows(nn.Module):
    """Linear over four windows of each sample, as in Swin and MobileViT; rows of all samples in one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        rows = x.view(count, 8, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(4 * count, 16, 8)
        maps = self.linear(rows).reshape(count, 2, 2, 4, 4, 16)
        return maps.permute(0, 5, 1, 3, 2, 4).reshape(count, 16, 8, 8)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        attended, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return attended.transpose(1, 2).reshape(x.shape)  # type: ignore[no-any-return]


class Einsum(nn.Module):
    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation
        self.weight = nn.Parameter(torch.ones(8, 16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(self.equation, x, self.weight)


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.Conv2d(12, 4, 1)), 12 * 16 * 8 * 9 + 4 * 16 * 12),
        (
            nn.Sequential(nn.Conv2d(8, 16, 3, 1, 1, groups=4), nn.Conv2d(16, 16, 5, 1, 2, groups=16)),
            16 * 64 * 2 * 9 + 16 * 64 * 25,
        ),
        (
            nn.Sequential(nn.ConvTranspose2d(8, 6, 3, 2, 1), nn.ConvTranspose2d(6, 4, 2, 2, groups=2)),
            64 * 8 * 6 * 9 + 15 * 15 * 6 * 2 * 4,
        ),
        (nn.Sequential(Windows(), Einsum("nc...,dc->nd...")), 64 * 8 * 16 + 64 * 16 * 8),
        (Attention(), 64 * 8 * 24 + 2 * 2 * 64 * 64 * 4 + 64 * 8 * 8),
    ],
    ids=["convolutions", "grouped", "transposed", "windows and einsum", "attention"],
)
def test_costs_are_those_counted_by_hand(layer: nn.Module, by_hand: int) -> None:
    x = torch.rand(2, 8, 8, 8)
    with torch.no_grad():
        channels = layer(x).shape[1]
    stage = Stage(layer, nn.Sequential(GlobalPool(), nn.Linear(channels, 3))).eval()
    cost = cost_of(stage_graph(stage, x, 1.0, last=False))
    assert (cost.macs - cost.exit_macs, cost.exit_macs) == (by_hand, 3 * channels)


INTEGERS = {"x.zero": (), "w.zero": (), "y.zero": (), "w": (6, 8, 3, 3)}
SCALES = {"x.scale": (), "w.scale": (), "y.scale": ()}
LSTM_WEIGHTS = {"in": (2, 24, 64), "on": (2, 24, 6)}


@pytest.mark.parametrize(
    ("nodes", "weights", "by_hand", "params"),
    [
        (
            [
                ("QuantizeLinear", ["input", "x.scale", "x.zero"], "xq", {}),
                (
                    "QLinearConv",
                    ["xq", "x.scale", "x.zero", "w", "w.scale", "w.zero", "y.scale", "y.zero"],
                    "yq",
                    {},
                ),
                ("DequantizeLinear", ["yq", "y.scale", "y.zero"], "score", {}),
            ],
            INTEGERS | SCALES,
            6 * 6 * 6 * 8 * 9,
            6 * 8 * 9,
        ),
        (
            [
                ("Flatten", ["input"], "rows", {"axis": 2}),
                ("Reshape", ["rows", "steps"], "tokens", {}),
                ("LSTM", ["tokens", "in", "on"], "score", {"hidden_size": 6, "direction": "bidirectional"}),
            ],
            LSTM_WEIGHTS,
            8 * 2 * 24 * (64 + 6),
            2 * 24 * (64 + 6),
        ),
    ],
    ids=["integers", "recurrent"],
)
def test_costs_of_what_torch_does_not_write(
    nodes: list[tuple[str, list[str], str, dict[str, object]]],
    weights: dict[str, tuple[int, ...]],
    by_hand: int,
    params: int,
) -> None:
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node(op, inputs, [given], **more) for op, inputs, given, more in nodes],
            "stage",
            [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 8, 8, 8])],
            [onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(np.ones(shape, np.int8 if name in INTEGERS else np.float32), name)
                for name, shape in weights.items()
            ]
            + [numpy_helper.from_array(np.array([8, -1, 64]), "steps")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )
    cost = cost_of(model.SerializeToString())
    assert (cost.macs, cost.params) == (by_hand, params)


def test_weights_too_large_for_half_precision(tmp_path: Path) -> None:
    model: Any = untrained()
    with torch.no_grad():
        model.classifier[1].weight.fill_(1e6)
    with pytest.raises((BundleError, ConfigError), match=r"finite logits|half precision"):
        export_bundle(
            model,
            tmp_path,
            "noise",
            Evaluation(("a", "b", "c"), NORMALISE, noise(6, 2), noise(6, 1), 0.01),
            TRAINING,
        )


def test_a_model_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Linear has no stages\(\) to export"):
        export_bundle(
            nn.Linear(1, 1),
            tmp_path,
            "none",
            Evaluation(("a", "b"), NORMALISE, noise(6, 2), noise(6, 1), 0.01),
            TRAINING,
        )
