"""Description of a run without running it."""

from collections.abc import Mapping
from pathlib import Path

from idlm_ds.build.data import find_corpus
from idlm_ds.build.engines import EngineSetup
from idlm_ds.build.judges import find_judge
from idlm_ds.build.methods import find_teacher, keeps_mean_of_fake
from idlm_ds.build.networks import count_parameters, new_network, starting_weights
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
    frozen: dict[str, int] = {}
    tokenizer = load_tokenizer(recipe.data.tokenizer)
    find_corpus(recipe.data.corpus)
    if isinstance(recipe, DistillRecipe):
        teacher = find_teacher(recipe, tokenizer)
        network, student = teacher.network, teacher.student
        if recipe.eval.is_measured:
            find_judge(recipe.eval.judge)
        is_in_rounds = isinstance(teacher.method, SelfDistillation)
        fake = {} if is_in_rounds else {"fake": int(keeps_mean_of_fake(recipe, network))}
        copies = {**fake, "student": 2 if is_in_rounds else 1}
        frozen = {"teacher": sharing_processes(recipe.teacher.sharding, setup.numerics.world)}
    else:
        network = student = new_network(recipe, tokenizer)
        starting_weights(recipe, network)
        copies = {"model": 1}
    size = count_parameters(network)
    say(to_yaml(recipe).rstrip())
    say()
    say(f"output      {output} (nothing has been written)")
    say(f"engines     {setup.note or f'{setup.json.name}: ZeRO-{setup.json.stage}'}")
    say(f"batch       {batch_arithmetic(recipe, setup)}")
    more = count_parameters(student) - size
    latent = f"; {more:,} more of the student's latent" if more else ""
    say(f"parameters  {size:,} a network: {', '.join([*frozen, *copies])}{latent}")
    for name, amount in memory_estimate(size, setup, copies, frozen=frozen).items():
        say(f"memory      {name:<8} {amount / GB:8.3f} GB a process")
    say("            weights, gradients, Adam, running mean and former teacher where there is one;")
    say("            activations come on top")
    stored = sum((ADAM_AND_MASTER + 4 * count) * size for count in copies.values())
    say(f"disk        {stored / GB:8.3f} GB a checkpoint; {checkpoints_kept(recipe)}")
    if recipe.checkpoint.asynchronous:
        share = stored / setup.numerics.world / GB
        say(f"host memory {share:8.3f} GB a process while one is written beside training")


def batch_arithmetic(recipe: DistillRecipe | PretrainRecipe, setup: EngineSetup) -> str:
    """Spell out the equation behind ``train.global_batch``."""
    n = setup.numerics
    tokens = recipe.train.global_batch * recipe.data.length
    return (
        f"{recipe.train.global_batch} sequences = {n.micro_batch} micro-batch x "
        f"{n.accumulation} accumulation x {n.world} processes; {tokens:,} tokens"
    )


def checkpoints_kept(recipe: DistillRecipe | PretrainRecipe) -> str:
    """Say how many checkpoints are on disk at once."""
    section = recipe.checkpoint
    hours = section.keep_every_hours
    more = f", beside one for every {hours:g} hours" if hours else ""
    return f"{section.keep} kept and one being written{more}"


def sharing_processes(sharding: str, world: int) -> int:
    """Count those that share a copy of the teacher; on a host, as many as the launcher says."""
    return {"world": world, "node": min(local_world_size(), world), "none": 1}[sharding]


def memory_estimate(
    size: int, setup: EngineSetup, copies: Mapping[str, int], *, frozen: Mapping[str, int]
) -> dict[str, float]:
    """Estimate the bytes each role holds on one process between steps.

    Weights are sharded from stage 3, gradients from stage 2, Adam's state from stage 1; running
    means and a former teacher are always sharded.

    Args:
        size: Parameters of a network.
        setup: Engine file and batch.
        copies: Of each trained network, how many further sets of weights there are.
        frozen: Of each network that does not learn, how many processes share a copy.
    """
    world, stage = setup.numerics.world, setup.json.stage
    compute = 2 if setup.numerics.precision == "bf16" else 4

    def shared(amount: float, from_stage: int, ranks: int = world) -> float:
        return amount / ranks if stage >= from_stage else amount

    memory = {name: shared(compute * size, 3, sharing) for name, sharing in frozen.items()}
    for name, count in copies.items():
        gradients = shared(4 * size, 2)
        memory[name] = shared(compute * size, 3) + gradients + shared(ADAM_AND_MASTER * size, 1)
        memory[name] += count * 4 * size / world
    return memory | {"together": sum(memory.values())}
