"""A trained network that says, of each picture a new one learns from, what it sees in it."""

import hashlib

import torch
from torch import Tensor, nn

from mqtt_mdi.datasets.normalisation import Normalisation


class Teacher:
    """A network, left as it is, and the normalisation it was trained with. No module: nothing trains it.

    One that `remembers` looks at a batch once, though it come again as with `Recipe.views` (Shen and Xing,
    arXiv 2112.01528).
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        normalise: Normalisation,
        device: str = "cpu",
        *,
        remembers: bool = False,
    ) -> None:
        """`network` gives the logits of every exit; the last one's teach. `name` tells it from others."""
        self.name = name
        self.remembers = remembers
        self.network = network.to(device).eval().requires_grad_(requires_grad=False)
        self.normalise = normalise
        self.answers: dict[bytes, Tensor] = {}

    def __call__(self, pictures: Tensor, normalised: Normalisation) -> Tensor:
        """Pictures (N, C, H, W), normalised by `normalised`, to logits (N, classes)."""
        if not self.remembers:
            return self._look(pictures, normalised)
        seen = hashlib.sha256(pictures.cpu().contiguous().numpy().data).digest()
        if seen not in self.answers:
            self.answers[seen] = self._look(pictures, normalised)
        return self.answers[seen]

    @torch.no_grad()
    def _look(self, pictures: Tensor, normalised: Normalisation) -> Tensor:
        logits: Tensor = self.network(self.normalise.instead_of(normalised, pictures))[-1]
        return logits


class Taught(nn.Module):
    """A network whose exits learn from a teacher by the method `taught`; both see the same picture."""

    def __init__(self, student: nn.Module, teacher: Teacher, normalise: Normalisation) -> None:
        """`normalise` is that of the student's pictures."""
        super().__init__()
        self.config = f"{getattr(student, 'config', '')}, taught by {teacher.name}"
        self.student = student
        self.teacher = teacher
        self.normalise = normalise

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits of every exit, K tensors of shape (N, classes); while training, the teacher's after them."""
        said: list[Tensor] = self.student(x)
        return [*said, self.teacher(x, self.normalise)] if self.training else said
