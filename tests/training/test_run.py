import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.datasets.labelled import Dataset, Labelled
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.registry import build
from mqtt_mdi.training.curves import CURVES_FILE, CURVES_PICTURE
from mqtt_mdi.training.recipe import Recipe
from mqtt_mdi.training.run import start_from, train_bundle

RECIPE = Recipe(epochs=2, batch=16, exit_weights=(0.2, 0.3, 0.4, 1), method="joint")


def samples(count: int, seed: int) -> Labelled:
    labels = np.arange(count) % 2
    pictures = np.random.default_rng(seed).integers(0, 90, (count, 3, 32, 32), np.uint8)
    pictures[labels == 1, :, ::4] += 150
    return Labelled(pictures, labels.astype(np.int64))


def train(out: Path, recipe: Recipe, weights: Path | None = None, count: int = 60) -> None:
    train_bundle(
        Dataset(samples(count, 1), samples(20, 2), ("plain", "striped")),
        "stripes",
        out,
        out / "checkpoint.pt",
        model="resnet18",
        width=0.125,
        recipe=recipe,
        held_out=10,
        max_accuracy_loss=0.1,
        sample=0,
        progress=lambda *_: None,
        weights=weights,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle")
    train(out, RECIPE)
    return out


def test_a_run_leaves_a_bundle_its_recipe_and_its_curves(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.stage_count == 4
    assert manifest.trained.recipe["method"] == "joint"
    assert manifest.trained.recipe["exit_weights"] == "0.2,0.3,0.4,1"
    with (bundle / CURVES_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["exit 4"]) <= 1 and float(row["loss"]) > 0 for row in rows)
    assert "accuracy on samples held out" in (bundle / CURVES_PICTURE).read_text()


def test_curves_that_cannot_be_written_keep_what_they_were(tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, epochs=1))
    before = (tmp_path / CURVES_FILE).read_text()
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "curves.partial").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"cannot write into .*: No space left on device; make room"):
        train(tmp_path, replace(RECIPE, epochs=1, seed=2))
    assert (tmp_path / CURVES_FILE).read_text() == before


def test_another_recipe_does_not_go_on_from_a_checkpoint(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to another run"):
        train(bundle, replace(RECIPE, method="distilled"))


def test_too_few_pictures_to_fit_and_hold_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 training pictures are too few; take at least 4"):
        train(tmp_path, RECIPE, count=3)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".gpu.pth"])
def test_starting_from_a_backbone(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = build("resnet18", 9, 3, 0.125), build("resnet18", 2, 3, 0.125)
    state = {name: value for name, value in there.state_dict().items() if "exits" not in name}
    path = tmp_path / f"weights{suffix}"
    if path.suffix == ".pth":
        if suffix == ".gpu.pth":  # what torch notes beside weights that lie on a GPU
            monkeypatch.setattr(torch.serialization, "location_tag", lambda _storage: "cuda:0")
        torch.save(state, path)
    else:
        save_file(state, path)
    start_from(here, path)
    assert torch.equal(here.state_dict()["layer3.1.conv1.weight"], state["layer3.1.conv1.weight"])


def test_a_bundle_says_what_weights_it_began_with(tmp_path: Path) -> None:
    wider = tmp_path / "wider.pth"
    torch.save(build("resnet18", 9, 3, 0.25).state_dict(), wider)
    train(tmp_path / "out", replace(RECIPE, epochs=1), wider)
    said = read_manifest(tmp_path / "out").trained.recipe["weights"]
    assert said == f"wider.pth {hashlib.sha256(wider.read_bytes()).hexdigest()[:12]}"


def test_weights_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(build("vgg16", 2, 3, 0.125).state_dict(), path)
    with pytest.raises(ConfigError, match=r"weights\.pth fits 0 of 122 tensors"):
        start_from(build("resnet18", 2, 3, 0.125), path)
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(ConfigError, match=r"cannot read the weights in .*; expected a state dictionary, as"):
        start_from(build("resnet18", 2, 3, 0.125), path)
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot read the weights in"):
        start_from(build("resnet18", 2, 3, 0.125), path)
