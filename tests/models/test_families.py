import pytest
import torch

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.registry import MODELS, build
from mqtt_mdi.models.resnet import ResNet
from mqtt_mdi.models.stage import Backbone, StagedModel, selected

# Of torchvision: parameters with 1000 classes, entries of the state dictionary, and some names and shapes.
TORCHVISION: dict[str, tuple[int, int, dict[str, tuple[int, ...]]]] = {
    "mobilenetv2": (3_504_872, 314, {"features.18.0.weight": (1280, 320, 1, 1)}),
    "resnet18": (
        11_689_512,
        122,
        {
            "conv1.weight": (64, 3, 7, 7),
            "layer1.0.bn2.running_var": (64,),
            "layer2.0.downsample.0.weight": (128, 64, 1, 1),
            "layer4.1.conv2.weight": (512, 512, 3, 3),
            "fc.weight": (1000, 512),
        },
    ),
    "resnet50": (
        25_557_032,
        320,
        {
            "layer1.0.downsample.1.weight": (256,),
            "layer1.2.conv3.weight": (256, 64, 1, 1),
            "layer3.5.conv2.weight": (256, 256, 3, 3),
            "fc.weight": (1000, 2048),
        },
    ),
    "vgg16": (
        138_365_992,
        97,
        {
            "features.0.weight": (64, 3, 3, 3),
            "features.1.running_mean": (64,),
            "features.40.weight": (512, 512, 3, 3),
            "classifier.0.weight": (4096, 25088),
            "classifier.6.bias": (1000,),
        },
    ),
}


def backbone(name: str) -> Backbone:
    with torch.device("meta"):
        return build(name, 1000, 3, 1.0, pixels=224)


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    parameters, entries, some = TORCHVISION[name]
    model = backbone(name)
    state = {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.startswith("exits.")}
    assert {k: state.get(k) for k in some} == some
    assert len(state) == entries
    assert sum(p.numel() for k, p in model.named_parameters() if not k.startswith("exits.")) == parameters


@pytest.mark.parametrize("name", TORCHVISION)
def test_imagenet_pictures_go_through_every_stage(name: str) -> None:
    x = torch.zeros(1, 3, 224, 224, device="meta")
    sides = []
    for stage in backbone(name).eval().stages():
        x, logits = stage(x)
        sides.append(x.shape[-1])
        assert logits.shape == (1, 1000)
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == 7


def test_a_backbone_of_other_classes_and_stem_loads_and_says_what_does_not_fit() -> None:
    there = {
        k: v for k, v in build("resnet18", 7, 3, 0.25, pixels=224).state_dict().items() if "exits" not in k
    }
    here = build("resnet18", 5, 3, 0.25)
    assert here.load_backbone(there) == ["fc.bias", "fc.weight"]
    assert torch.equal(here.state_dict()["layer4.1.conv2.weight"], there["layer4.1.conv2.weight"])
    assert torch.equal(here.state_dict()["conv1.weight"], there["conv1.weight"][:, :, 2:5, 2:5])


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_wider_backbone_gives_evenly_spaced_channels(name: str) -> None:
    wide, narrow = build(name, 5, 3, 0.5).state_dict(), build(name, 5, 3, 0.25)
    drawn = {k: v.clone() for k, v in narrow.state_dict().items()}
    linear = [k for k in drawn if k.startswith(("fc.", "classifier.")) and drawn[k].shape != wide[k].shape]
    missing = narrow.load_backbone(wide)
    assert missing == sorted(linear)
    loaded = narrow.state_dict()
    changed = [k for k in loaded if not k.startswith("exits.") and k not in missing]
    assert all(torch.isin(loaded[k], wide[k]).all() for k in changed)
    assert all(torch.equal(loaded[k], drawn[k]) for k in missing)


def test_a_narrower_backbone_gives_only_what_is_as_large() -> None:
    wide = build("resnet18", 5, 3, 0.5)
    drawn = {k: v.clone() for k, v in wide.state_dict().items()}
    missing = wide.load_backbone(build("resnet18", 5, 3, 0.25).state_dict())
    assert "conv1.weight" in missing
    assert all(torch.equal(wide.state_dict()[k], drawn[k]) for k in missing)


def test_selected_takes_the_ends_and_the_middle() -> None:
    value = torch.arange(5.0 * 4 * 5 * 3).view(5, 4, 5, 3)
    assert torch.equal(selected(value, (3, 2, 3, 3)), value[[0, 2, 4]][:, [0, 3]][:, :, 1:4])
    assert torch.equal(selected(value, value.shape), value)
    assert selected(torch.tensor(7), ()).item() == 7


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_every_model_is_the_chain_of_its_stages(name: str, channels: int, side: int) -> None:
    torch.manual_seed(3)
    model = build(name, 5, channels, 0.125).eval()
    assert isinstance(model, StagedModel)
    assert (len(model.stages()) == 1) == name.endswith("-static")
    x = torch.randn(2, channels, side, side)
    with torch.no_grad():
        expected = model(x)
        for stage, logits in zip(model.stages(), expected, strict=True):
            x, found = stage(x)
            assert torch.equal(found, logits)
            assert found.shape == (2, 5)
    shared = {id(p) for stage in model.stages() for p in stage.parameters()}
    assert shared == {id(p) for p in model.parameters()}


def test_a_block_of_resnet_adds_its_input() -> None:
    model = build("resnet18", 5, 3, 0.125)
    assert isinstance(model, ResNet)
    block = model.get_submodule("layer1.0").eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        x = torch.rand(1, 8, 4, 4)
        assert torch.equal(block(x), x)


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"no model 'resnet9000'; known: .*mobilenetv2"):
        build("resnet9000", 10, 1, 1.0)
