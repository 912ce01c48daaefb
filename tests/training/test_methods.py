import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.training.methods import METHODS, loss_of

LABELS = torch.tensor([0, 2, 1, 0])


def said(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((4, 3), generator=generator).requires_grad_() for _ in range(3)]


def test_the_joint_loss_is_the_weighted_sum() -> None:
    logits = said(1)
    parts = [functional.cross_entropy(one, LABELS, label_smoothing=0.05).item() for one in logits]
    found = loss_of("joint", (0.2, 0.3, 1), 3)(logits, LABELS).item()
    assert found == pytest.approx(0.2 * parts[0] + 0.3 * parts[1] + parts[2], rel=1e-5)


def test_distillation_adds_nothing_where_all_exits_agree() -> None:
    logits = [said(2)[0]] * 3
    joint, distilled = (loss_of(name, (), 3)(logits, LABELS) for name in ("joint", "distilled"))
    assert distilled.item() == pytest.approx(joint.item(), rel=1e-5)


def test_early_exits_learn_from_the_last_and_not_the_other_way_round() -> None:
    joint, distilled = said(3), said(3)
    loss_of("joint", (), 3)(joint, LABELS).backward()  # type: ignore[no-untyped-call]
    loss_of("distilled", (), 3)(distilled, LABELS).backward()  # type: ignore[no-untyped-call]
    assert joint[2].grad is not None
    assert distilled[2].grad is not None
    assert torch.allclose(joint[2].grad, distilled[2].grad)
    assert joint[0].grad is not None
    assert distilled[0].grad is not None
    assert not torch.allclose(joint[0].grad, distilled[0].grad)
    nearer = (distilled[0] - distilled[0].grad).detach()
    teacher = functional.softmax(distilled[2].detach(), 1)
    before, after = (
        functional.kl_div(functional.log_softmax(student, 1), teacher, reduction="batchmean")
        for student in (distilled[0].detach(), nearer)
    )
    assert after < before


def test_with_a_teacher_all_exits_learn_mostly_what_it_says() -> None:
    exits, teacher = said(5), said(6)[0]
    loss_of("taught", (), 3)([*exits, teacher], LABELS).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    for weight, exit_ in zip((0.5, 0.5, 1), exits, strict=True):
        labelled, imitating = (exit_.detach().clone().requires_grad_() for _ in range(2))
        functional.cross_entropy(labelled, LABELS, label_smoothing=0.05).backward()  # type: ignore[no-untyped-call]
        # The gradient of the divergence at temperature 4, times 16, is 4 times what the answers differ by.
        softer = functional.softmax(imitating / 4, 1) - functional.softmax(teacher / 4, 1)
        assert labelled.grad is not None
        assert exit_.grad is not None
        expected = weight * (0.1 * labelled.grad + 0.9 * 4 * softer / len(LABELS))
        torch.testing.assert_close(exit_.grad, expected.detach())


@pytest.mark.parametrize("name", METHODS)
def test_an_exit_of_weight_zero_learns_nothing(name: str) -> None:
    logits = said(4)
    taught = [said(5)[0]] if name == "taught" else []
    loss_of(name, (0, 1, 1), 3)([*logits, *taught], LABELS).backward()  # type: ignore[no-untyped-call]
    assert logits[0].grad is None or not logits[0].grad.any()
    assert logits[1].grad is not None
    assert logits[1].grad.any()


@pytest.mark.parametrize("weights", [(1, 1), (0.5, -1, 1), (1, 1, 0)])
def test_weights_that_do_not_fit(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="the network has 3 exits"):
        loss_of("joint", weights, 3)


def test_an_unknown_method() -> None:
    with pytest.raises(ConfigError, match="no training method 'magic'; known: distilled, joint, taught"):
        loss_of("magic", (), 3)
