"""The choices of a training run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What decides the trained weights, apart from the model and the data.

    `exit_weights` are those of the exits in the loss, none for the method's own; `shift` is how far pictures
    are moved at random and `erase` the side of the square that is hidden in each, in pixels; with `mirror`
    half of them are mirrored. Of each picture so come `views` views, one an epoch and then the first again;
    0 for a new one each epoch.
    """

    epochs: int = 20
    batch: int = 128
    learning_rate: float = 0.15
    weight_decay: float = 5e-4
    momentum: float = 0.9
    average_decay: float = 0.998
    shift: int = 2
    mirror: bool = True
    erase: int = 0
    views: int = 0
    method: str = "distilled"
    exit_weights: tuple[float, ...] = ()
    seed: int = 1
