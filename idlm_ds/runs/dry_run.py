"""Description of a run without running it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from idlm_ds.build.data import find_corpus
from idlm_ds.build.engines import EngineSetup
from idlm_ds.build.judges import find_judge
from idlm_ds.build.methods import find_teacher
from idlm_ds.build.networks import Network, new_network, starting_weights
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.console import say
from idlm_ds.objectives.self_distillation import SelfDistillation
from idlm_ds.recipes.load import to_yaml
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe
from idlm_ds.startup import local_world_size

GB = 1e9
ADAM_AND_MASTER = 12
"""Bytes a parameter of fp32 weights and two fp32 moments."""


def describe(recipe: DistillRecipe | PretrainRecipe, setup: EngineSetup, output: Path) -> None:
    """Print the resolved recipe, the batch arithmetic, sizes and memory.

    Raises:
        UserError: A file the run needs is missing or does not fit the others.
    """
    tokenizer = load_tokenizer(recipe.data.tokenizer)
    find_corpus(recipe.data.corpus)
    if isinstance(recipe, DistillRecipe):
        teacher = find_teacher(recipe, tokenizer)
        network, student = teacher.network, teacher.student
        if recipe.eval.is_measured:
            find_judge(recipe.eval.judge)
        is_in_rounds = isinstance(teacher.method, SelfDistillation)
        fake = {} if is_in_rounds else {"fake": True}
        trained = {"teacher": False, **fake, "student": True}
        copies = 2 if is_in_rounds else 1
        sharing = sharing_processes(recipe.teacher.sharding, setup.numerics.world)
    else:
        network = student = new_network(recipe, tokenizer)
        starting_weights(recipe, network)
        trained, copies, sharing = {"model": True}, 1, setup.numerics.world
    size = count_parameters(network)
    say(to_yaml(recipe).rstrip())
    say()
    say(f"output      {output} (nothing has been written)")
    say(f"engines     {setup.note or f'{setup.json.name}: ZeRO-{setup.json.stage}'}")
    say(f"batch       {batch_arithmetic(recipe, setup)}")
    more = count_parameters(student) - size
    latent = f"; {more:,} more of the student's latent" if more else ""
    say(f"parameters  {size:,} a network: {', '.join(trained)}{latent}")
    memory = memory_estimate(size, setup, trained, copies=copies, sharing=sharing)
    for name, amount in memory.items():
        say(f"memory      {name:<8} {amount / GB:8.3f} GB a process")
    say("            weights, gradients, Adam, running mean and former teacher where there is one;")
    say("            activations come on top")


def batch_arithmetic(recipe: DistillRecipe | PretrainRecipe, setup: EngineSetup) -> str:
    """Spell out the equation behind ``train.global_batch``."""
    n = setup.numerics
    tokens = recipe.train.global_batch * recipe.data.length
    return (
        f"{recipe.train.global_batch} sequences = {n.micro_batch} micro-batch x "
        f"{n.accumulation} accumulation x {n.world} processes; {tokens:,} tokens"
    )


def count_parameters(network: Network) -> int:
    """Count the parameters without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in network.make().parameters())


def sharing_processes(sharding: str, world: int) -> int:
    """Count those that share a copy of the teacher; on a host, as many as the launcher says."""
    return {"world": world, "node": min(local_world_size(), world), "none": 1}[sharding]


def memory_estimate(
    size: int, setup: EngineSetup, trained: Mapping[str, bool], *, copies: int, sharing: int
) -> dict[str, float]:
    """Estimate the bytes each role holds on one process between steps.

    Weights are sharded from stage 3, gradients from stage 2, Adam's state from stage 1; the running
    mean is always sharded, and so are other ``copies`` of a trained network's weights. Of a frozen
    network ``sharing`` processes have a copy together.
    """
    world, stage = setup.numerics.world, setup.json.stage
    compute = 2 if setup.numerics.precision == "bf16" else 4

    def shared(amount: float, from_stage: int, ranks: int = world) -> float:
        return amount / ranks if stage >= from_stage else amount

    memory = {}
    for name, learns in trained.items():
        memory[name] = shared(compute * size, 3, world if learns else sharing)
        if learns:
            gradients = shared(4 * size, 2)
            memory[name] += gradients + shared(ADAM_AND_MASTER * size, 1)
            memory[name] += copies * 4 * size / world
    return memory | {"together": sum(memory.values())}
