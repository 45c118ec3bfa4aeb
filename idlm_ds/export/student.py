"""What is exported: a student's folder, one of its checkpoints, or the run that has either."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from idlm_ds.build.latent import with_latent
from idlm_ds.build.locate import locate
from idlm_ds.build.saved_model import SavedModel, family_of, find_model
from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.plans import parameter_shapes, plan_of, problems
from idlm_ds.checkpoints.json_files import read_json
from idlm_ds.checkpoints.model_folder import CONFIG, NetworkCard, read_card
from idlm_ds.checkpoints.rank_files import RankFiles
from idlm_ds.checkpoints.retention import STATE
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.checkpoints.weight_files import has_weights
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.export.fields import family_fields
from idlm_ds.processes.base import Process
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.recipes.student import LatentSection

RECIPE, RUN, REPORT = "recipe.yaml", "run.json", "report.json"
ROLE = "student"


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """A network with all that others need to use it."""

    about: Description
    """Of the exported model, not of what it was made from; with family, mask and length."""

    weights: NamedTensors
    tokenizer: Tokenizer
    process: Process

    origin: Mapping[str, Any]
    """Where it came from, for people to read."""

    report: Mapping[str, Any]
    """Its run's figures; empty where there are none of these weights."""


def find_student(spec: str, described_by: str | None = None) -> Student:
    """Open a student; no weight is read yet.

    Args:
        spec: Its model folder, a checkpoint of its training, or a run's folder, which stands for
            its ``student`` or else for its newest valid checkpoint.
        described_by: A model with the same network and tokenizer, for a checkpoint whose run does
            not state them.

    Raises:
        UserError: It is missing, damaged, incomplete or something else.
    """
    path = locate(spec, "model").absolute()
    if (path / CONFIG).is_file():
        return _from_model_folder(path)
    if (path / STATE).is_file() or (path / transaction.MANIFEST).is_file():
        if problem := transaction.problem_with(path):
            raise UserError(problem)
        return _from_checkpoint(path, described_by)
    if has_weights(path / ROLE):
        return _from_model_folder(path / ROLE)
    return _from_checkpoint(_newest(path), described_by)


def _newest(run: Path) -> Path:
    root, problems = run / "checkpoints", []
    for step in reversed(transaction.steps(root)):
        folder = root / f"{transaction.PREFIX}{step}"
        problem = transaction.problem_with(folder)
        if problem is None:
            return folder
        problems.append(problem)
    if problems:
        raise UserError(f"{run}: no valid checkpoint; the newest: {problems[0]}")
    raise UserError(f"{run}: neither a model folder nor a checkpoint nor a run that has one")


def _from_model_folder(folder: Path) -> Student:
    read_card(folder)
    model = find_model(str(folder), "model")
    origin = read_json(folder / CONFIG).get("origin")
    is_of_run = folder.name == ROLE
    run = _json_if_there(folder.parent / RUN) if is_of_run else {}
    return _student(
        _described_by(model),
        model.content.weights,
        origin={**(origin or {}), "trained_with": run.get("versions")},
        report=_json_if_there(folder.parent / REPORT) if is_of_run else {},
    )


def _from_checkpoint(folder: Path, described_by: str | None) -> Student:
    state, run = read_json(folder / STATE), folder.parents[1]
    updates = state.get("updates", {}).get(ROLE)
    if updates is None:
        raise UserError(f"{folder}: holds no {ROLE}")
    log = _json_if_there(run / RUN)
    origin = {
        "made_by": f"{state.get('recipe', {}).get('objective.name')}, running-mean weights",
        "checkpoint": folder.name,
        "student_updates": updates,
        "commit": log.get("commit"),
        "trained_with": log.get("versions"),
    }
    if described_by is not None:
        identity = _described_by(find_model(described_by, "--card"))
    elif has_weights(run / ROLE):
        identity = _described_by(find_model(str(run / ROLE), "model"))
    elif (run / RECIPE).is_file():
        identity = _described_by_recipe(run / RECIPE)
    else:
        raise UserError(f"{folder}: no run around it tells its network; pass --card FOLDER")
    weights = RankFiles(folder / ROLE)
    return _student(identity, weights, origin=origin | identity.origin, report={})


@dataclass(frozen=True, slots=True)
class _Identity:
    """Network, family and tokenizer of a student, and what their source adds to its origin."""

    model: SavedModel
    family: ProcessSection
    length: int
    tokenizer: Path
    origin: dict[str, Any] = field(default_factory=dict)
    latent: LatentSection = LatentSection()
    """What the student has beside the network of ``model``."""


def _described_by(model: SavedModel) -> _Identity:
    if model.about.length is None:
        raise UserError(f"{model.key}: {model.path} does not tell how long its sequences were")
    return _Identity(model, family_of(model), model.about.length, model.path)


def _described_by_recipe(path: Path) -> _Identity:
    recipe = load_recipe(DistillRecipe, path)
    try:
        teacher = find_model(recipe.teacher.path, "teacher.path")
        tokenizer = locate(recipe.data.tokenizer, "data.tokenizer", wants_weights=False)
    except UserError as error:
        raise type(error)(f"{path}: {error}; or pass --card FOLDER") from error
    origin = {"recipe": recipe.name, "teacher": teacher.origin}
    latent = recipe.student.latent
    return _Identity(teacher, recipe.process, recipe.data.length, tokenizer, origin, latent)


def _student(
    identity: _Identity,
    weights: NamedTensors,
    *,
    origin: Mapping[str, Any],
    report: Mapping[str, Any],
) -> Student:
    process = identity.model.process(identity.family)
    tokenizer = Tokenizer(identity.tokenizer, "model")
    identity.model.check_tokenizer(tokenizer, process)
    network = identity.model.network(identity.family, identity.length)
    card = with_latent(network, identity.latent).card
    assert isinstance(card, NetworkCard)
    sizes = {key: value for key, value in card.network.items() if key != "kind"}
    expected = parameter_shapes(identity.model.about.kind, sizes)
    description = replace(
        identity.model.about,
        family=identity.family.name,
        process=family_fields(card.process),
        sizes=sizes,
        parameters=sum(math.prod(shape) for shape in expected.values()),
        mask_id=card.process["mask_id"],
        length=card.length,
    )
    if lines := problems(plan_of(description.kind), expected, weights):
        raise UserError(f"{weights.label}: does not fit its network: {'; '.join(lines)}")
    return Student(
        about=description,
        weights=weights,
        tokenizer=tokenizer,
        process=process,
        origin={key: value for key, value in origin.items() if value is not None},
        report=report,
    )


def _json_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
