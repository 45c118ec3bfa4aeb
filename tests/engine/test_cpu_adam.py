"""DeepSpeed's Adam for offloaded state: built without locks, equal to torch's, resumed exactly."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from idlm_ds.engine import cpu_adam
from idlm_ds.engine.config import AdamW

SETTINGS = AdamW(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
SIZE, UPDATES = 10_007, 8


@pytest.fixture
def build_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for operators, with the lock of a build that was killed."""
    lock = tmp_path / "cpu_adam" / "lock"
    lock.parent.mkdir()
    lock.touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    cpu_adam._file.cache_clear()
    yield tmp_path
    cpu_adam._file.cache_clear()


def script(folder: Path, text: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_without_a_compiler_the_operator_is_not_tried(build_folder, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert cpu_adam.build_operator() == "cannot be built without /nowhere/c++"
    assert not cpu_adam._file().exists()


@pytest.mark.slow
def test_a_compiler_that_fails_is_named(build_folder, monkeypatch):
    compiler = script(build_folder, "exit 1")
    monkeypatch.setenv("CXX", compiler)
    assert cpu_adam.build_operator() == f"failed to build with {compiler}"
    assert not cpu_adam._file().exists()


def test_a_build_that_hangs_is_ended(build_folder, monkeypatch):
    begun = build_folder / "begun"
    monkeypatch.setenv("CXX", script(build_folder, "sleep 300"))
    monkeypatch.setattr(
        cpu_adam, "_BUILD", f"open({str(begun)!r}, 'w'); import os; os.system(os.environ['CXX'])"
    )
    monkeypatch.setattr(cpu_adam, "LIMIT_S", 3.0)
    start = time.monotonic()
    assert cpu_adam.build_operator() == "was not built within 3 s"
    assert time.monotonic() - start < 60
    assert begun.exists()
    assert str(build_folder / "compiler") not in commands()


def commands() -> str:
    """The command lines of all processes."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(texts)


def test_a_folder_that_cannot_be_written_is_a_problem(build_folder, monkeypatch):
    def compiled(folder: str) -> str:
        built = Path(folder) / "cpu_adam" / "cpu_adam.so"
        built.parent.mkdir()
        built.touch()
        return ""

    (build_folder / "idlm_ds").touch()
    monkeypatch.setattr(cpu_adam, "_compile", compiled)
    monkeypatch.setenv("CXX", "/bin/true")
    assert cpu_adam.build_operator().startswith("could not be built: ")


def test_without_a_gpu_offloading_keeps_torchs_optimizer(monkeypatch):
    monkeypatch.setattr(cpu_adam, "operator_problem", lambda: pytest.fail("asked for it"))
    zero = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    json = cpu_adam.EngineJson("my.json", {"zero_optimization": zero})
    assert json.offloads_optimizer
    assert cpu_adam.offloaded_adam(json, SETTINGS) is None
    monkeypatch.setattr(cpu_adam, "has_gpu", lambda: True)
    plain = cpu_adam.EngineJson("my.json", {"zero_optimization": {"stage": 2}})
    assert cpu_adam.offloaded_adam(plain, SETTINGS) is None
    monkeypatch.setattr(cpu_adam, "operator_problem", lambda: "cannot be built without c++")
    assert cpu_adam.offloaded_adam(json, SETTINGS) is None


@pytest.fixture(scope="module")
def make_cpu_adam() -> Callable[[list[torch.Tensor]], torch.optim.Optimizer]:
    """What offloaded roles use; its operator is built once on a machine, in a minute or more."""
    problem = cpu_adam.build_operator() or cpu_adam._load()
    if problem:
        pytest.skip(f"DeepSpeed's operator {problem}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_adam, "has_gpu", lambda: True)
        patch.setattr(cpu_adam, "operator_problem", lambda: "")
        zero = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
        make = cpu_adam.offloaded_adam(
            cpu_adam.EngineJson("my.json", {"zero_optimization": zero}), SETTINGS
        )
    assert make is not None
    return make


def gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(SIZE, generator=generator) for _ in range(UPDATES)]


def updated(
    optimizer: torch.optim.Optimizer, weight: torch.Tensor, given: list[torch.Tensor]
) -> torch.Tensor:
    for gradient in given:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach().clone()


def start() -> torch.nn.Parameter:
    generator = torch.Generator().manual_seed(2)
    return torch.nn.Parameter(torch.randn(SIZE, generator=generator))


@pytest.mark.slow
def test_it_agrees_with_torchs_fused_adamw(make_cpu_adam):
    ours, theirs = start(), start()
    s = SETTINGS
    fused = torch.optim.AdamW(
        [theirs], lr=s.lr, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay, fused=True
    )
    optimizer = make_cpu_adam([ours])
    for gradient in gradients():
        one, other = updated(optimizer, ours, [gradient]), updated(fused, theirs, [gradient])
        assert (one - other).norm() < 1e-6 * other.norm()
    for key in ("exp_avg", "exp_avg_sq"):
        one, other = optimizer.state[ours][key], fused.state[theirs][key]
        assert (one - other).norm() < 1e-6 * other.norm(), key


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_it_resumes_bit_for_bit(stop, make_cpu_adam):
    whole = start()
    kept = make_cpu_adam([whole])
    updated(kept, whole, gradients())
    first = start()
    before = make_cpu_adam([first])
    updated(before, first, gradients()[:stop])
    # As a checkpoint restores it: moments by value, the count as a tensor.
    again = torch.nn.Parameter(first.detach().clone())
    after = make_cpu_adam([again])
    after.state[again] = {
        **{key: before.state[first][key].clone() for key in ("exp_avg", "exp_avg_sq")},
        "step": torch.tensor(float(stop)),
    }
    updated(after, again, gradients()[stop:])
    assert torch.equal(again, whole)
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(after.state[again][key], kept.state[whole][key]), key


def test_the_operator_is_looked_for_below_the_users_folder(build_folder):
    assert cpu_adam._file().is_relative_to(Path(os.environ["TORCH_EXTENSIONS_DIR"]) / "idlm_ds")
