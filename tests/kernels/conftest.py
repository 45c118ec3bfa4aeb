import importlib
from collections.abc import Callable, Iterator

import pytest
import torch

from idlm_ds.kernels import launch

FORMS = ("reference", "triton")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Which form of an operator is tested; Triton's runs in its interpreter."""
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton is not installed")
    return request.param


@pytest.fixture
def load(form: str) -> Callable[..., Callable]:
    """Find the tested form of an operator by its folder and name."""
    module = {"reference": "reference", "triton": "triton_impl"}[form]

    def find(folder: str, name: str = "") -> Callable:
        place = importlib.import_module(f"idlm_ds.kernels.{folder}.{module}")
        return getattr(place, name or folder)

    return find


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let short rows have several tiles."""
    monkeypatch.setattr(launch, "TILE", 32)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fill memory that is allocated without a value with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
