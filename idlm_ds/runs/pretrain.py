"""A pretraining run, from its recipe to the model folder it leaves."""

from dataclasses import asdict, replace
from pathlib import Path

from idlm_ds.build.data import load_windows, make_loader, step_settings
from idlm_ds.build.engines import EngineSetup, adamw, learning_rate
from idlm_ds.build.locate import from_cache
from idlm_ds.build.networks import Network, new_network, starting_weights
from idlm_ds.build.processes import vocabulary_of
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.export import gather_weights
from idlm_ds.engine.role import TrainedRole, start_trained
from idlm_ds.engine.turns import host_first
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.pretrain import NextToken, PretrainMethod
from idlm_ds.processes.by_name import make_process
from idlm_ds.recipes.schema import PretrainRecipe
from idlm_ds.registry.families import FAMILIES
from idlm_ds.registry.methods import OBJECTIVES
from idlm_ds.registry.table import load
from idlm_ds.runs.session import Session, checkpointer, logging_hooks, run_to_end
from idlm_ds.train.hooks.validation import Validation
from idlm_ds.train.step import Program


def run_pretrain(recipe: PretrainRecipe, setup: EngineSetup, session: Session) -> Path | None:
    """Train a network on data.

    Collective: every rank must call.

    Returns:
        The model folder: running-mean weights, configuration and tokenizer; None where a hook
        ended the run early.

    Raises:
        Preempted: A signal ended the run.
    """
    world = session.world
    session.choose_kernels()
    # One rank of each host fetches what comes from the hub.
    with host_first(world) as is_leader, from_cache(not is_leader):
        tokenizer = load_tokenizer(recipe.data.tokenizer)
        network = new_network(recipe, tokenizer)
        source = starting_weights(recipe, network)
    count = recipe.train.validation_windows
    windows, heldout = load_windows(recipe, tokenizer, num_heldout=count, world=world)
    state = session.state(windows)
    checkpoint = session.find_start(state)
    session.open_output()

    model = start_trained(
        "model",
        network.make,
        source,
        setup.json,
        setup.numerics,
        adamw(recipe.optim),
        ema_decay=recipe.ema.decay,
    )
    program = Program(
        method=make_method(recipe, tokenizer),
        roles={"model": model},
        rates={Phase.PRETRAIN: learning_rate(recipe.optim, recipe.train.steps)},
        settings=step_settings(recipe, world),
    )
    start = session.restore(checkpoint, program)
    stop = recipe.train.steps
    hooks, metrics = logging_hooks(session, program, start=start, stop=stop)
    validation = Validation(
        model,
        make_method(recipe, tokenizer, is_validation=True),
        heldout,
        every=recipe.train.validate_every,
        stop=stop,
        batch=recipe.train.micro_batch,
        world=world,
        metrics=metrics,
    )
    loader = make_loader(recipe, windows, world)
    saver = checkpointer(session, program, state, stop=stop)
    hooks.append(validation)
    if not run_to_end(session, program, loader, hooks, saver, start=start, stop=stop):
        return None
    return _save(model, network, tokenizer, session)


def make_method(
    recipe: PretrainRecipe, tokenizer: Tokenizer, *, is_validation: bool = False
) -> PretrainMethod:
    """Build what the network is trained on, or measured by.

    A network that trains on Duo's relaxed inputs and part of the range of times is measured as what
    it samples like: by the bound of uniform diffusion, on tokens and the whole range.
    """
    section = recipe.process
    method = load(OBJECTIVES[recipe.objective.name].entry_point)
    if method is NextToken:
        return NextToken(t_min=section.t_min)
    sampled_as = FAMILIES[section.name].sampled_as
    if is_validation and sampled_as:
        section = replace(section, name=sampled_as)
    process = make_process(asdict(section), *vocabulary_of(section, len(tokenizer)))
    return method(process, t_min=section.t_min)


def _save(model: TrainedRole, network: Network, tokenizer: Tokenizer, session: Session) -> Path:
    folder = session.options.output / "model"
    weights = gather_weights(model, is_first=session.world.is_first)
    if session.world.is_first:
        named = {name.removeprefix(network.prefix): w for name, w in weights.items()}
        write_network(folder, network.card, named)
        tokenizer.save(folder)
        say(f"model: {folder}")
    session.world.barrier()
    return folder
