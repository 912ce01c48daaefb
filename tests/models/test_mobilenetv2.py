import torch

from mqtt_mdi.models.mobilenetv2 import MobileNetV2, MobileNetV2Config

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
