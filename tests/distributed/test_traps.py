"""What DeepSpeed does where this package takes care; where one fails, upstream has changed."""

import deepspeed
import pytest
import torch
from torch import Tensor, nn

from idlm_ds.engine.dist import World
from idlm_ds.engine.role import TrainedRole
from idlm_ds.engine.weights import fill_weights
from idlm_ds.models.dit import DiT
from idlm_ds.processes.base import Read, at
from idlm_ds.tensor_types import SoftInput
from tests import mixtures

from . import toy
from .harness import run_ranks

pytestmark = pytest.mark.dist


def _inputs(world: World, use: int) -> tuple[SoftInput, Tensor, Read]:
    generator = torch.Generator().manual_seed(10 * use + world.rank)
    scores = torch.randn(2 * toy.LENGTH, toy.VOCAB, generator=generator)
    soft = mixtures.of_rows(scores, (2, toy.LENGTH))
    return soft, torch.tensor([0.5, 1.5]), at(torch.arange(2 * toy.LENGTH))


def _learn(role: TrainedRole, world: World, use: int) -> float:
    """One update; returns the norm of its gradient."""
    with role.learning() as forward:
        role.backward(forward(*_inputs(world, use)).pow(2).mean())
    return role.step(lr=1e-2).grad_norm


def _borrow(network: nn.Module, world: World, use: int) -> Tensor:
    """Differentiate a loss of an idle network with respect to its input."""
    soft, sigma, read = _inputs(world, use)
    leaf = soft.scores.requires_grad_()
    loss = network(soft, sigma, read).pow(2).mean()
    return torch.autograd.grad(loss, leaf)[0]


def _norm_after_borrowing(world: World, stage: int, how: str) -> float:
    fake = toy.start_program(world, toy.engine_json(stage)).roles["fake"]
    _learn(fake, world, 0)
    match how:
        case "module":
            _borrow(fake.module, world, 1)
        case "engine":
            _borrow(fake._engine, world, 1)
    fake.release()
    return _learn(fake, world, 2)


@pytest.mark.parametrize("stage", [2, 3])
def test_borrowing_a_module_leaves_its_next_gradient_alone(stage: int):
    undisturbed = run_ranks(_norm_after_borrowing, 1, stage, "not at all")
    assert run_ranks(_norm_after_borrowing, 1, stage, "module") == undisturbed


def test_upstream_borrowing_an_engine_at_stage_3_spoils_its_next_gradient_in_silence():
    (undisturbed,) = run_ranks(_norm_after_borrowing, 1, 3, "not at all")
    (spoilt,) = run_ranks(_norm_after_borrowing, 1, 3, "engine")
    assert spoilt > 2 * undisturbed


def _index_error_of_borrowing(world: World) -> str:
    with pytest.raises(IndexError) as error:
        _norm_after_borrowing(world, 2, "engine")
    return str(error.value)


def test_upstream_borrowing_an_engine_at_stage_2_raises():
    assert run_ranks(_index_error_of_borrowing, 1) == ["list index out of range"]


def _error_of_calling_the_teacher(world: World, stage: int) -> str:
    roles = toy.start_program(world, toy.engine_json(stage)).roles
    assert _borrow(roles["teacher"].module, world, 0).abs().max() > 0
    with pytest.raises(RuntimeError) as error:
        _borrow(roles["teacher"]._engine, world, 0)
    return str(error.value)


@pytest.mark.parametrize("stage", [1, 3])
def test_upstream_the_frozen_teacher_called_as_an_engine_raises(stage: int):
    (error,) = run_ranks(_error_of_calling_the_teacher, 1, stage)
    assert "Direct calls to tensor.backward() are not supported" in error


def _change_gathered(world: World) -> dict[str, float]:
    role = toy.start_program(world, toy.engine_json(3)).roles["student"]
    (parameter,) = [p for n, p in role.module.named_parameters() if n == "vocab_embed.embedding"]
    moved = {}
    for modifier_rank in (None, 0):
        with deepspeed.zero.GatheredParameters([parameter]):
            before = parameter.detach().clone()
        with (
            torch.no_grad(),
            deepspeed.zero.GatheredParameters([parameter], modifier_rank=modifier_rank),
        ):
            parameter.add_(1.0)
        with deepspeed.zero.GatheredParameters([parameter]):
            moved[str(modifier_rank)] = (parameter.detach() - before).abs().max().item()
    return moved


def test_upstream_writing_gathered_weights_without_a_modifier_rank_is_thrown_away():
    for moved in run_ranks(_change_gathered, 2):
        assert moved["None"] == 0.0
        assert moved["0"] == pytest.approx(1.0)


def _gather_twice(world: World) -> list[bool]:
    """Whether a shard written behind DeepSpeed's back is seen, without and with partitioning."""
    role = toy.start_program(world, toy.engine_json(3)).roles["student"]
    persistent = role._engine.optimizer.persistent_parameters
    persistent[0].all_gather(persistent)
    for parameter in persistent:
        parameter.ds_tensor.data.fill_(7.0)
    seen = []
    for is_partitioned_first in (False, True):
        if is_partitioned_first:
            persistent[0].partition(persistent)
        persistent[0].all_gather(persistent)
        seen.append(all((p == 7.0).all().item() for p in persistent))
    return seen


def test_upstream_gathering_skips_weights_that_are_already_whole():
    assert run_ranks(_gather_twice, 2) == [[False, True]] * 2


def _step_with_an_open_graph(world: World) -> str:
    role = toy.start_program(world, toy.engine_json(1)).roles["student"]
    with role.learning() as forward:
        output = forward(*_inputs(world, 0))
        before = [w.detach().clone() for w in role.shards.weights]
        with pytest.raises(RuntimeError) as error:
            role.step(lr=1.0)
        assert all(torch.equal(a, b) for a, b in zip(before, role.shards.weights, strict=True))
        role.backward(output.sum())
    assert role.step(lr=1e-3).was_applied
    return str(error.value)


def test_a_step_while_a_graph_is_open_is_refused():
    (error,) = run_ranks(_step_with_an_open_graph, 1)
    assert error.startswith("student: 1 graph(s) still open")


def _load_over_garbage(world: World) -> tuple[int, int]:
    fields = toy.engine_json(3).frozen(toy.numerics_of(world))
    with deepspeed.zero.Init(config_dict_or_path=fields):
        network = DiT(toy.NETWORK)
    shards = [parameter.ds_tensor.data for parameter in network.parameters()]
    for shard in shards:
        shard.fill_(torch.nan)
    fill_weights(network, toy.weights_of("teacher"))
    held = sum(shard.numel() for shard in shards) * world.size
    unset = sum(int(shard.isnan().sum()) for shard in shards)
    return unset, held - sum(parameter.ds_numel for parameter in network.parameters())


def test_loading_leaves_no_padding_with_what_memory_happened_to_hold():
    for unset, padding in run_ranks(_load_over_garbage, 2):
        assert padding > 0, "nothing is padded here"
        assert unset == 0
