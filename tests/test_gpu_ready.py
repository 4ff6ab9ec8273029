"""Le garde de tests/gpu_ready.py refuse ce qu'il doit refuser, et rien d'autre."""

import pytest
import torch
from gpu_ready import FactoryGuard
from torch import nn

from utils import plots, training
from utils.data import Batches

CPU = torch.device("cpu")
FORGOTTEN = {
    "zeros": lambda x: torch.zeros(3), "ones": lambda x: torch.ones(2, 2),
    "full": lambda x: torch.full((2,), 1.0),
    "randn": lambda x: torch.randn(3, generator=torch.Generator()), "rand": lambda x: torch.rand(3),
    "randint": lambda x: torch.randint(10, (3,)), "randperm": lambda x: torch.randperm(4),
    "arange": lambda x: torch.arange(4), "linspace": lambda x: torch.linspace(0, 1, 5),
    "eye": lambda x: torch.eye(2), "empty": lambda x: torch.empty(2),
    "tensor": lambda x: torch.tensor([1.0, 2.0]),
    "as_tensor": lambda x: torch.as_tensor([1.0]), "device=None": lambda x: torch.zeros(3, device=None),
    "dans une compréhension": lambda x: [torch.zeros(1) for _ in range(2)],
}
ALLOWED = {
    "device=": lambda x: torch.randn(3, device=x.device), "zeros_like": torch.zeros_like,
    "randn_like": torch.randn_like, "new_zeros": lambda x: x.new_zeros(3), "as_tensor(x)": torch.as_tensor,
    "bernoulli": torch.bernoulli,
    "distributions": lambda x: torch.distributions.Normal(0.0, 1.0).sample((2,)),
    "nn.Linear": lambda x: nn.Linear(2, 2),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_factory_without_device_is_refused(name):
    x = torch.full((3,), 0.5)
    with FactoryGuard(), pytest.raises(AssertionError, match=r"test_gpu_ready\.py, ligne \d+ : torch\.\w+ "):
        FORGOTTEN[name](x)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_follows_its_input_passes(name):
    x = torch.full((3,), 0.5)
    with FactoryGuard():
        ALLOWED[name](x)


def test_a_module_may_create_its_own_tensors_but_only_when_built():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))
            self.rows = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in range(2)])

        def forward(self, x):
            return x + torch.zeros(3)

    with FactoryGuard():
        model = Scaled()
        with pytest.raises(AssertionError, match="torch.zeros"):
            model(model.weight)


def test_the_course_helpers_pass_the_guard():
    x = torch.rand(8, 1, 4, 4)
    model = nn.Linear(16, 1)
    with FactoryGuard():
        batches = Batches(x, size=4)
        training.fit(model, lambda b: {"loss": model(b.flatten(1)).mean(), "β": 0.5}, batches, 2, ema=0.9)
        plots.tile(x)
