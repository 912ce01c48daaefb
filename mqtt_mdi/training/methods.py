"""How the exits of a network learn together: training methods by name."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from mqtt_mdi.errors import ConfigError

Loss = Callable[[list[Tensor], Tensor], Tensor]
"""Logits of every exit [(N, classes)] and labels (N,) to a scalar."""

Method = Callable[[Sequence[float]], Loss]
"""A weight for each exit to a loss."""

_SMOOTHING = 0.05
_TEMPERATURE = 2.0
_TEACHERS_TEMPERATURE = 4.0
_TEACHERS_SHARE = 0.9


def joint(weights: Sequence[float]) -> Loss:
    """The weighted sum of the exits' losses: BranchyNet (arXiv 1709.01686), equation 2."""

    def loss(logits: list[Tensor], labels: Tensor) -> Tensor:
        return sum(
            (
                weight * functional.cross_entropy(said, labels, label_smoothing=_SMOOTHING)
                for weight, said in zip(weights, logits, strict=True)
            ),
            start=logits[0].new_zeros(()),
        )

    return loss


def distilled(weights: Sequence[float]) -> Loss:
    """The joint loss, and each early exit also learns what the last one says.

    Be Your Own Teacher (Zhang et al., arXiv 1905.08094), the divergence of its equation 2 at temperature 2.
    Its weight is twice the exit's, since at that temperature its gradient is a quarter as large.
    """
    hard = joint(weights)

    def loss(logits: list[Tensor], labels: Tensor) -> Tensor:
        total = hard(logits, labels)
        teacher = functional.softmax(logits[-1].detach() / _TEMPERATURE, dim=1)
        for weight, early in zip(weights, logits[:-1], strict=False):
            student = functional.log_softmax(early / _TEMPERATURE, dim=1)
            total = total + 2 * weight * functional.kl_div(student, teacher, reduction="batchmean")
        return total

    return loss


def taught(weights: Sequence[float]) -> Loss:
    """A tenth of the joint loss, and the rest is each exit's divergence from a teacher's logits, given last.

    Knowledge distillation (Hinton et al., arXiv 1503.02531), section 2, with the share and the temperature
    that Tian et al. (arXiv 1910.10699), section 4, take for it.
    """
    hard = joint(weights)

    def loss(logits: list[Tensor], labels: Tensor) -> Tensor:
        *exits, teacher = logits
        wanted = functional.softmax(teacher.detach() / _TEACHERS_TEMPERATURE, dim=1)
        total = (1 - _TEACHERS_SHARE) * hard(exits, labels)
        for weight, said in zip(weights, exits, strict=True):
            student = functional.log_softmax(said / _TEACHERS_TEMPERATURE, dim=1)
            soft = functional.kl_div(student, wanted, reduction="batchmean") * _TEACHERS_TEMPERATURE**2
            total = total + _TEACHERS_SHARE * weight * soft
        return total

    return loss


METHODS: dict[str, Method] = {"distilled": distilled, "joint": joint, "taught": taught}


def loss_of(name: str, weights: Sequence[float], exits: int) -> Loss:
    """The loss of a method by name.

    Without `weights` the last exit counts fully and each early one half. Raises ConfigError.
    """
    if name not in METHODS:
        raise ConfigError(f"no training method {name!r}; known: {', '.join(sorted(METHODS))}")
    chosen = tuple(weights) or (*[0.5] * (exits - 1), 1.0)
    if len(chosen) != exits or min(chosen) < 0 or chosen[-1] == 0:
        raise ConfigError(
            f"exit weights {', '.join(map(str, chosen))}: the network has {exits} exits; give each a weight "
            "of 0 or more, the last one more than 0"
        )
    return METHODS[name](chosen)
