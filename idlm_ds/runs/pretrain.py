"""A pretraining run, from its recipe to the model folder it leaves."""

from dataclasses import asdict, replace
from pathlib import Path

from idlm_ds.build.data import load_windows, make_draws, make_loader
from idlm_ds.build.engines import EngineSetup, adamw, learning_rate
from idlm_ds.build.networks import Network, new_network, starting_weights
from idlm_ds.build.processes import vocabulary_of
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.export import gather_weights
from idlm_ds.engine.role import RoleEngine, start_role
from idlm_ds.engine.weights import WeightSource
from idlm_ds.objectives.pretrain import Nelbo, NextToken, PretrainObjective
from idlm_ds.processes.by_name import make_process
from idlm_ds.recipes.schema import PretrainRecipe
from idlm_ds.runs.session import Session, checkpointer, logging_hooks
from idlm_ds.train.hooks.validation import Validation
from idlm_ds.train.loop import run_phases
from idlm_ds.train.program import PretrainProgram


def run_pretrain(recipe: PretrainRecipe, setup: EngineSetup, session: Session) -> Path:
    """Train a network on data.

    Collective: every rank must call.

    Returns:
        The model folder: running-mean weights, configuration and tokenizer.
    """
    world = session.world
    tokenizer = load_tokenizer(recipe.data.tokenizer)
    network = new_network(recipe, tokenizer)
    count = recipe.train.validation_windows
    windows, heldout = load_windows(recipe, tokenizer, num_heldout=count, world=world)
    state = session.state(windows)
    found = session.find_start(state)
    source = starting_weights(recipe, network)
    session.open_output()

    program = _program(recipe, setup, network, source, tokenizer, world)
    program.model.start_ema(recipe.ema.decay)
    start = session.restore(found, program)
    stop = recipe.train.steps
    hooks, metrics = logging_hooks(session, program, start=start, stop=stop)
    hooks += [
        Validation(
            program.model,
            make_objective(recipe, tokenizer, is_validation=True),
            heldout,
            every=recipe.train.validate_every,
            stop=stop,
            batch=recipe.train.micro_batch,
            world=world,
            metrics=metrics,
        ),
        checkpointer(session, program, state, stop=stop),
    ]
    loader = make_loader(recipe, windows, world)
    run_phases(program, loader, hooks, start=start, stop=stop)
    return _save(program.model, network, tokenizer, session)


def make_objective(
    recipe: PretrainRecipe, tokenizer: Tokenizer, *, is_validation: bool = False
) -> PretrainObjective:
    """What the network is trained on, or measured by.

    A network that trains on Duo's relaxed inputs and part of the range of times is measured as what
    it samples like: by the bound of uniform diffusion, on tokens and the whole range.
    """
    if recipe.objective.name == "ar":
        return NextToken()
    section = recipe.process
    if is_validation and section.name == "duo":
        section = replace(section, name="udlm")
    return Nelbo(make_process(asdict(section), *vocabulary_of(section, len(tokenizer))))


def _program(
    recipe: PretrainRecipe,
    setup: EngineSetup,
    network: Network,
    source: WeightSource,
    tokenizer: Tokenizer,
    world: World,
) -> PretrainProgram:
    optimizer = adamw(recipe.optim)
    model = start_role("model", network.make, source, setup.json, setup.numerics, optimizer)
    return PretrainProgram(
        model=model,
        objective=make_objective(recipe, tokenizer),
        rate=learning_rate(recipe.optim, recipe.train.steps),
        draws=make_draws(recipe, world, t_min=recipe.process.t_min),
    )


def _save(model: RoleEngine, network: Network, tokenizer: Tokenizer, session: Session) -> Path:
    folder = session.options.output / "model"
    weights = gather_weights(model, is_first=session.world.is_first)
    if session.world.is_first:
        named = {name.removeprefix(network.prefix): w for name, w in weights.items()}
        write_network(folder, network.card, named)
        tokenizer.save(folder)
        say(f"model: {folder}")
    session.world.barrier()
    return folder
