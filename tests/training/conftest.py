import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # The tensors here are so small that threads would mostly wait for each other.
    torch.set_num_threads(1)
