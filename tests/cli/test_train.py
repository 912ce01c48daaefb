import gzip
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.cli.learning import training_bar
from mqtt_mdi.cli.train import train
from mqtt_mdi.datasets.fashion_mnist import FASHION_MNIST_DEBIAN
from mqtt_mdi.errors import ConfigError

COUNTS = {"train": 300, "t10k": 200}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first pictures of the real data set, in files of the same form."""
    if not FASHION_MNIST_DEBIAN.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    folder = tmp_path_factory.mktemp("data")
    for part, count in COUNTS.items():
        for kind, header, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            name = f"{part}-{kind}-ubyte.gz"
            with gzip.open(FASHION_MNIST_DEBIAN / name) as whole:
                start = bytearray(whole.read(header + count * size))
            start[4:8] = count.to_bytes(4, "big")
            (folder / name).write_bytes(gzip.compress(start, 1))
    return folder


def run(*arguments: str) -> str:
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_pictures_to_a_bundle_and_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle[i]"
    options = ["--data", str(data), "--out", str(out), "--epochs", "2", "--batch", "50", "--width", "0.125"]
    options += ["--model", "vgg16"]
    options += ["--hold-out", "100", "--sample", "50", "--threads", "1"]
    output = run(*options)
    assert "epoch 2/2" in output
    assert f"bundle written to {out}" in output.replace("\n", "")
    assert "Leaving at the first exit" in output
    manifest = read_manifest(out)
    assert manifest.trained.samples == 300
    assert manifest.trained.recipe["epochs"] == 2
    assert manifest.exit_accuracy[-1] >= 0.05
    assert len(read_sample(out).pictures) == 50

    assert "going on from its last finished epoch" in run(*options).replace("\n", " ")
    assert read_manifest(out) == manifest


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--hold-out", "300", "choose 2 to 299"),
        ("--hold-out", "1", "choose 2 to 299"),
        ("--sample", "7", "choose a multiple of 10"),
        ("--model", "resnet9000", "no model 'resnet9000'"),
        ("--batch", "290", "200 samples do not fill a batch of 290"),
        ("--data", "/nowhere", "no folder /nowhere"),
        ("--out", "/proc/nothing/here", "cannot write to --out"),
        ("--out", "/proc/self", "cannot write to --out"),
    ],
)
def test_choices_that_do_not_fit(data: Path, tmp_path: Path, option: str, value: str, message: str) -> None:
    options = ["--data", str(data), "--out", str(tmp_path), "--hold-out", "100", "--sample", "10"]
    with pytest.raises(ConfigError, match=message):
        run(*options, option, value)


def test_a_width_that_is_no_number() -> None:
    result = CliRunner().invoke(train, ["--width", "nan"])
    assert result.exit_code == 2
    assert "nan is not a finite number." in result.output


def test_a_checkpoint_that_is_none(data: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"garbage")
    options = ["--data", str(data), "--out", str(tmp_path), "--hold-out", "100", "--batch", "50"]
    with pytest.raises(ConfigError, match=r"it is damaged, or no checkpoint \(\w+\); delete it"):
        run(*options)


def test_a_run_that_is_stopped_says_how_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), training_bar(3, Console()):
        raise KeyboardInterrupt
    assert "stopped; the same command goes on from the last finished epoch" in capsys.readouterr().out
