import pytest
import torch

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.mobilenetv2 import MobileNetV2, MobileNetV2Config
from mqtt_mdi.models.registry import MODELS, build
from mqtt_mdi.models.stage import StagedModel

IMAGENET = MobileNetV2Config(classes=1000, channels=3, width=1.0, small_input=False, last_channels=1280)

# Names and shapes of torchvision's mobilenet_v2, one of each kind.
TORCHVISION = {
    "features.0.0.weight": (32, 3, 3, 3),
    "features.0.1.running_var": (32,),
    "features.1.conv.0.0.weight": (32, 1, 3, 3),
    "features.1.conv.0.1.bias": (32,),
    "features.1.conv.1.weight": (16, 32, 1, 1),
    "features.1.conv.2.running_mean": (16,),
    "features.2.conv.0.0.weight": (96, 16, 1, 1),
    "features.2.conv.1.0.weight": (96, 1, 3, 3),
    "features.2.conv.1.1.num_batches_tracked": (),
    "features.2.conv.2.weight": (24, 96, 1, 1),
    "features.2.conv.3.weight": (24,),
    "features.7.conv.1.0.weight": (192, 1, 3, 3),
    "features.14.conv.2.weight": (160, 576, 1, 1),
    "features.17.conv.2.weight": (320, 960, 1, 1),
    "features.18.0.weight": (1280, 320, 1, 1),
    "features.18.1.weight": (1280,),
    "classifier.1.weight": (1000, 1280),
    "classifier.1.bias": (1000,),
}


def test_the_backbone_has_torchvisions_names_and_shapes() -> None:
    model = MobileNetV2(IMAGENET)
    backbone = {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.startswith("exits.")}
    assert {k: backbone.get(k) for k in TORCHVISION} == TORCHVISION
    assert len(backbone) == 314
    weights = [p for k, p in model.named_parameters() if not k.startswith("exits.")]
    assert sum(p.numel() for p in weights) == 3_504_872


def test_a_backbone_with_another_number_of_classes_loads_and_names_what_does_not_fit() -> None:
    there = {k: v for k, v in MobileNetV2(IMAGENET).state_dict().items() if not k.startswith("exits.")}
    here = MobileNetV2(MobileNetV2Config(classes=7, channels=3))
    assert here.load_backbone(there) == ["classifier.1.bias", "classifier.1.weight"]
    assert torch.equal(here.state_dict()["features.18.0.weight"], there["features.18.0.weight"])


def test_imagenet_pictures_shrink_thirty_two_times() -> None:
    body = MobileNetV2(IMAGENET).eval().features
    with torch.no_grad():
        assert body(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_model_by_name_is_the_chain_of_its_stages(name: str, channels: int) -> None:
    torch.manual_seed(3)
    model = build(name, 5, channels, 0.25).eval()
    assert isinstance(model, StagedModel)
    x = torch.randn(2, channels, 28, 28)
    with torch.no_grad():
        expected = model(x)
        for stage, logits in zip(model.stages(), expected, strict=True):
            x, found = stage(x)
            assert torch.equal(found, logits)
            assert found.shape == (2, 5)
    shared = {id(p) for stage in model.stages() for p in stage.parameters()}
    assert shared == {id(p) for p in model.parameters()}


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"no model 'resnet9000'; known: .*mobilenetv2"):
        build("resnet9000", 10, 1, 1.0)
