import csv
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.cli.split import split
from mqtt_mdi.cli.train import train
from mqtt_mdi.datasets.registry import read_dataset
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.export.convert import evaluation_of
from mqtt_mdi.splitting.run import Choices, _evaluation, split_onnx_bundle
from mqtt_mdi.splitting.tapped import Split
from mqtt_mdi.training.curves import CURVES_FILE
from mqtt_mdi.training.recipe import Recipe

COLOURS = {"green": (0, 200, 0), "red": (200, 0, 0)}
NETWORK = """
import warnings

import torch
from torch import nn

def build():
    return nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 2),
    )

class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

def exotic():
    return nn.Sequential(nn.Flatten(), Bessel(), nn.Linear(192, 2))

class View(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1)

def viewing():
    return nn.Sequential(nn.Conv2d(3, 4, 3), View(), nn.Linear(144, 2))

def nothing():
    return 1

def broken():
    raise RuntimeError("no weights")

def leaving():
    raise SystemExit(2)

def script():
    with warnings.catch_warnings():  # PyTorch would rather see it gone, too
        warnings.simplefilter("ignore")
        return torch.jit.trace(build(), torch.rand(2, 3, 8, 8))

def pooled():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, 1, 1), nn.Linear(192, 2)
        self.again = self.first

    def forward(self, x):
        return self.second(self.again(x).flatten(1))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of two colours, and a module with a network in it."""
    folder, rng = tmp_path_factory.mktemp("split"), np.random.default_rng(1)
    for part, count in {"train": 60, "test": 10}.items():
        for name, colour in COLOURS.items():
            (folder / "pictures" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + rng.normal(0, 40, (8, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / part / name / f"{number}.png")
    (folder / "colour_network.py").write_text(NETWORK)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["y"]),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    weights = [numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")]
    pooled = helper.make_graph(nodes, "pooled", [entry], [answer], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(pooled, opset_imports=opset, ir_version=8), folder / "pooled.onnx")
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


def run(*arguments: str) -> str:
    options = ["--dataset", "pictures", "--data", "pictures", "--hold-out", "20", "--sample", "10"]
    options += ["--batch", "20", "--threads", "1"]
    result = CliRunner().invoke(split, [*options, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_frozen_module_gets_exits(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    output = run("colour_network:build", "--cut", "2", "--last", "4", "--samples", "100", "--out", str(out))
    assert f"bundle written to {out}" in output.replace("\n", "")
    assert "running the network" in output
    manifest = read_manifest(out)
    assert [stage.output_shape for stage in manifest.stages] == [(8, 8, 8), None]
    assert manifest.input.shape == (3, 8, 8)
    assert manifest.trained.samples == 100
    assert manifest.trained.recipe["cuts"] == "2"
    assert manifest.trained.recipe["frozen"] is True
    assert min(manifest.exit_accuracy) >= 0.9
    assert len(read_sample(out).pictures) == 10


def test_a_module_is_trained_with_its_exits_and_keeps_its_own(tmp_path: Path) -> None:
    out = str(tmp_path / "bundle")
    options = ["--cut", "2", "--no-freeze", "--epochs", "60", "--learning-rate", "0.05", "--shift", "0"]
    output = run(
        "colour_network:build", *options, "--mean", "0.3,0.3,0.3", "--std", "0.2,0.2,0.2", "--out", out
    )
    assert "training" in output
    manifest = read_manifest(Path(out))
    assert manifest.input.mean == (0.3, 0.3, 0.3)
    assert manifest.stages[1].exit_macs == 128 * 2
    assert manifest.exit_accuracy[-1] >= 0.9
    with (Path(out) / CURVES_FILE).open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(1, 61)]


def teach(bundle: Path, *arguments: str) -> str:
    options = ["--dataset", "pictures", "--data", "pictures", "--hold-out", "20", "--sample", "0"]
    options += ["--model", "resnet18", "--width", "0.125", "--batch", "20", "--epochs", "1", "--threads", "1"]
    result = CliRunner().invoke(
        train, [*options, "--teacher", str(bundle), *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_a_network_that_was_split_teaches_another_one(folder: Path, tmp_path: Path) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "student"
    run("colour_network:build", "--cut", "2", "--out", str(bundle), "--epochs", "1")
    # A network that `train` has written teaches as well.
    teach(bundle, "--out", str(out))
    assert str(read_manifest(out).trained.recipe["teacher"]).startswith("colour_network:build ")
    teach(out, "--out", str(tmp_path / "third"))
    assert str(read_manifest(tmp_path / "third").trained.recipe["teacher"]).startswith("resnet18 ")
    with pytest.raises(
        ConfigError, match=r"knows 2 classes of pictures \(3, 8, 8\), the data has 2 of \(3, 16"
    ):
        teach(bundle, "--size", "16", "--out", str(tmp_path / "large"))
    save_file({"module.1.weight": torch.zeros(1)}, bundle / "weights.safetensors")
    with pytest.raises(BundleError, match="does not fit colour_network:build"):
        teach(bundle, "--out", str(tmp_path / "other"))
    save_onnx(folder / "colour.onnx")
    run("colour.onnx", "--cut", "r1", "--out", str(tmp_path / "onnx"), "--epochs", "1")
    with pytest.raises(BundleError, match=r"names no model, or weights\.safetensors is missing"):
        teach(tmp_path / "onnx", "--out", str(tmp_path / "untaught"))


def test_an_onnx_file_gets_exits(folder: Path, tmp_path: Path) -> None:
    save_onnx(folder / "colour.onnx")
    out = str(tmp_path / "bundle")
    run("colour.onnx", "--cut", "r1", "--out", out, "--epochs", "30")
    manifest = read_manifest(Path(out))
    assert [stage.output_shape for stage in manifest.stages] == [(6, 6, 6), None]
    assert manifest.stages[1].exit_macs == 6 * 2
    assert manifest.exit_accuracy[0] >= 0.9


def test_converting_finds_the_pictures_that_splitting_held_out(folder: Path, tmp_path: Path) -> None:
    save_onnx(folder / "colour.onnx")
    dataset = read_dataset("pictures", Path("pictures"), None)
    choices = Choices(50, 20, 0, 0.01, Recipe(epochs=1, batch=20, seed=5))
    cutting = Split("colour.onnx", ("r1",), None)
    manifest = split_onnx_bundle(
        folder / "colour.onnx", cutting, dataset, choices, tmp_path, name="pictures", progress=lambda *_: None
    )
    fitted, measured = _evaluation(dataset, choices)
    again = evaluation_of(manifest, dataset, None, 0.01)
    np.testing.assert_array_equal(again.held_out.pictures, measured.held_out.pictures)
    assert (len(fitted.labels), len(measured.held_out.labels)) == (30, 20)
    held_out = {picture.tobytes() for picture in again.held_out.pictures}
    assert not held_out & {picture.tobytes() for picture in fitted.pictures}


def save_onnx(path: Path) -> None:
    """Two classes, of which it knows nothing yet."""
    rng = np.random.default_rng(1)
    weights = {"w1": (6, 3, 3, 3), "w2": (2, 6)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("GlobalAveragePool", ["r1"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w2"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_few_pictures_need_no_further_options(tmp_path: Path) -> None:
    options = [
        "--dataset",
        "pictures",
        "--data",
        "pictures",
        "--batch",
        "20",
        "--epochs",
        "1",
        "--threads",
        "1",
    ]
    options += ["colour_network:build", "--cut", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(split, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert read_manifest(tmp_path).trained.recipe["held_out"] == 24
    assert len(read_sample(tmp_path).pictures) == 20


def test_a_network_that_draws_its_weights_is_the_same_again(tmp_path: Path) -> None:
    options = ["colour_network:build", "--cut", "2", "--no-freeze", "--epochs", "1", "--out", str(tmp_path)]
    run(*options)
    first = read_manifest(tmp_path)
    run(*options)
    assert read_manifest(tmp_path) == first


def test_weights_under_two_names(tmp_path: Path) -> None:
    run("colour_network:Doubled", "--cut", "again", "--epochs", "1", "--out", str(tmp_path))
    weights = load_file(tmp_path / "weights.safetensors")
    assert torch.equal(weights["module.first.weight"], weights["module.again.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["colour_network"], "'colour_network' is no network: expected package.module:build"),
        (["colour_network:"], "is no network"),
        (["nowhere_at_all:build"], "nowhere_at_all:build cannot be built: ModuleNotFoundError"),
        (["colour_network:absent"], "cannot be built: AttributeError"),
        (
            ["colour_network:broken"],
            r"cannot be built: RuntimeError: no weights in \S+colour_network\.py, line \d+: raise Run",
        ),
        (["colour_network:nothing"], "gives int, expected a torch.nn.Module"),
        (["colour_network:leaving"], "colour_network:leaving cannot be built: SystemExit: 2"),
        (["colour_network:script"], "expected a torch.nn.Module as it was before torch.jit"),
        (["colour_network:pooled", "--cut", "1"], "that comes last multiplies nothing by weights"),
        (["pooled.onnx", "--cut", "relu"], "that comes last multiplies nothing by weights"),
        (["colour_network:exotic", "--cut", "0"], "that comes last cannot be written as ONNX: .*bessel_j0"),
        (["colour_network:viewing", "--cut", "0", "--no-freeze"], "view size is not compatible .*line"),
        (["colour_network:build", "--last", "9"], "no layer '9'"),
        (["colour_network:build", "--samples", "121"], "the data set has 120 training pictures"),
        (["colour_network:build", "--samples", "20"], "--hold-out 20: choose 2 to 18 of 20"),
        (["colour_network:build", "--samples", "3"], "3 training pictures are too few; take at least 4"),
        (["colour_network:build", "--sample", "7"], "multiple"),
        (["colour_network:build", "--batch", "101"], "100 samples do not fill a batch of 101"),
        (["colour_network:build", "--mean", "0.5"], "--mean and --std go together"),
        (["colour_network:build", "--hold-out", "1"], "--hold-out 1: choose 2 to 118"),
        (["colour_network:build", "--mean", "0.5", "--std", "0"], "those of --std above 0"),
        (["colour_network:build", "--mean", "124,116,104", "--std", "58,57,57"], "divide what is of 0..255"),
        (["colour_network:build", "--mean", "0.5", "--std", "1"], "have 1 values, pictures 3 channels"),
        (["colour_network:build", "--out", "/proc/nothing/here"], "cannot write to --out"),
        (["absent.onnx"], "cannot read absent.onnx"),
        (["absent.onnx", "--no-freeze"], "--no-freeze needs a torch module"),
    ],
)
def test_choices_that_do_not_fit(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run("--out", str(tmp_path), *([] if "--cut" in arguments else ["--cut", "2"]), *arguments)


def test_the_commands_in_the_manual_are_understood() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "split.md").read_text().replace("\\\n", " ")
    commands = [line.split()[2:] for line in manual.splitlines() if line.startswith("    mqtt-mdi split ")]
    assert len(commands) == 4
    for command in commands:
        assert split.make_context("split", command).params["cuts"]


def test_numbers_a_channel() -> None:
    result = CliRunner().invoke(split, ["colour_network:build", "--cut", "2", "--mean", "grey"])
    assert result.exit_code == 2
    assert "'grey' is not a list of numbers" in result.output
    result = CliRunner().invoke(split, ["colour_network:build", "--cut", "2", "--mean", "0.5,nan,0.5"])
    assert "'0.5,nan,0.5' is not a list of numbers" in result.output
