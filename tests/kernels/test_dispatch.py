"""The form of an operator is chosen once, said aloud, and never fallen back from in silence."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from idlm_ds import kernels
from idlm_ds.errors import UserError
from idlm_ds.kernels import dispatch
from idlm_ds.kernels.launch import collecting
from idlm_ds.kernels.masked_gap import masked_gap

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
FOLDERS = sorted(path.parent.name for path in Path(kernels.__file__).parent.glob("*/reference.py"))


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(dispatch, "_choice", "auto")


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(dispatch, "_is_installed", lambda: False)


def launched() -> int:
    rows = [torch.zeros(2, 5) for _ in range(3)]
    with collecting() as launches:
        masked_gap(*rows, torch.ones(2), 4)
    return len(launches)


def test_on_a_cpu_auto_is_the_reference():
    assert launched() == 0
    assert dispatch.choose("auto", CPU) == "kernels: reference"
    assert launched() == 0


def test_triton_is_run_when_it_is_chosen():
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    line = dispatch.choose("triton", CPU)
    assert line == f"kernels: triton {triton.__version__} on its interpreter"
    assert launched() == 1
    dispatch.choose("reference", CPU)
    assert launched() == 0


def test_on_a_gpu_auto_is_triton_where_it_is_installed(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert dispatch.choose("auto", GPU).endswith(" on NVIDIA H100")
    monkeypatch.setattr(dispatch, "_is_installed", lambda: False)
    assert dispatch.choose("auto", GPU) == "kernels: reference"


def test_triton_where_it_is_not_installed_is_refused(absent):
    for device in (CPU, GPU):
        with pytest.raises(UserError, match=r"^train\.kernels: triton is not installed; use auto"):
            dispatch.choose("triton", device)
    assert launched() == 0


def test_triton_without_a_gpu_is_refused(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(dispatch, "is_interpreted", lambda: False)
    with pytest.raises(UserError, match="needs a GPU, and the networks are on cpu; use auto or"):
        dispatch.choose("triton", CPU)


@pytest.mark.parametrize("folder", FOLDERS)
def test_both_forms_have_the_same_operators(folder):
    pytest.importorskip("triton", reason="Triton is not installed")
    place = f"idlm_ds.kernels.{folder}"
    reference, fused, exported = (
        importlib.import_module(name)
        for name in (f"{place}.reference", f"{place}.triton_impl", place)
    )
    operators = {n: f for n, f in vars(exported).items() if hasattr(f, "__wrapped__")}
    assert operators
    for name, operator in operators.items():
        assert operator.__wrapped__ is getattr(reference, name)
        signatures = [str(inspect.signature(form)) for form in (getattr(fused, name), operator)]
        assert signatures[0] == signatures[1]


def test_nothing_but_the_triton_forms_needs_triton():
    modules = [f"idlm_ds.kernels.{folder}" for folder in FOLDERS]
    program = f"""
import sys
sys.modules["triton"] = None
import importlib, torch
for name in {modules}: importlib.import_module(name)
from idlm_ds.kernels.masked_gap import masked_gap
masked_gap(*(torch.zeros(2, 5) for _ in range(3)), torch.ones(2), 4)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
