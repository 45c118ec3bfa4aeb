"""One folder per checkpoint with everything a run needs to go on.

Weights, Adam moments and running means are stored by parameter name and range, so a checkpoint
does not depend on the ZeRO stage or the number of ranks that wrote it. All files are safetensors
or JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.rank_files import RUNNING_MEAN, RankFiles, rank_of
from idlm_ds.checkpoints.retention import STATE, Retention
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import TrainedRole
from idlm_ds.engine.saving import take_snapshot, write_snapshot
from idlm_ds.errors import UserError


def save_checkpoint(
    root: Path,
    step: int,
    roles: Mapping[str, TrainedRole],
    state: Mapping[str, Any],
    *,
    world: World,
    keep: int,
) -> Path:
    """Write ``root/step-N`` whole or not at all, then delete all but the newest ``keep``.

    Collective: every rank must call, with the same arguments.

    Args:
        root: The run's ``checkpoints`` folder.
        step: Phases done.
        roles: The trained roles.
        state: JSON values that go with them; the same on all ranks.
        world: The process group.
        keep: How many checkpoints stay.

    Raises:
        UserError: A rank cannot write, the same on all ranks.
    """
    snapshot = take_snapshot(step, roles, state, is_copied=False)
    return write_snapshot(root, snapshot, Retention(keep), world=world)


def find_checkpoint(root: Path, *, world: World) -> tuple[Path | None, list[str]]:
    """Return the newest valid checkpoint, and what was wrong with newer ones.

    Collective: every rank must call; all get the same answer.
    """
    problems: list[str] = []
    for step in reversed(world.agree(transaction.steps(root) if world.is_first else None)):
        folder = root / f"{transaction.PREFIX}{step}"
        problem = problem_with(folder, world=world)
        if problem is None:
            return folder, problems
        problems.append(problem)
    return None, problems


def problem_with(folder: Path, *, world: World) -> str | None:
    """Describe why a checkpoint must not be read, or return None.

    Every file is hashed by the rank that will read it, which has it in memory then; where another
    number of ranks wrote them, all hash about as many bytes.

    Collective: every rank must call; all get the same answer.
    """
    entries, problem = world.agree(transaction.read_manifest(folder) if world.is_first else None)
    if problem is not None:
        return problem
    problem = transaction.problem_in(
        folder, {name: entries[name] for name in _share(entries, world)}
    )
    return world.first_problem(problem)


def _share(entries: Mapping[str, transaction.FileEntry], world: World) -> list[str]:
    writers = {name: rank_of(name) for name in entries}
    if {rank for rank in writers.values() if rank is not None} == set(range(world.size)):
        return [name for name, rank in writers.items() if (rank or 0) == world.rank]
    return world.share({name: entry["size"] for name, entry in entries.items()})


def read_state(folder: Path) -> dict[str, Any]:
    """Read the JSON values of a checkpoint."""
    return json.loads((folder / STATE).read_text("utf-8"))


def load_checkpoint(folder: Path, roles: Mapping[str, TrainedRole]) -> dict[str, Any]:
    """Put a checkpoint into freshly started roles and return its JSON values.

    Collective: every rank must call, before any forward.

    Raises:
        UserError: The checkpoint was made by a run with other roles or other networks.
    """
    state = read_state(folder)
    if state["updates"].keys() != roles.keys():
        raise UserError(f"{folder}: holds {sorted(state['updates'])}, this run has {sorted(roles)}")
    for name, role in roles.items():
        _read_shards(folder / name, role, has_mean=name in state.get("means", roles))
        role.updates = int(state["updates"][name])
        role.shards.set_update_count(role.updates)
        role.shards.publish()
    return state


@torch.no_grad()
def _read_shards(folder: Path, role: TrainedRole, *, has_mean: bool) -> None:
    for kind, buffers in role.stored().items():
        if kind == RUNNING_MEAN and not has_mean:
            continue
        stored = RankFiles(folder, kind)
        _check_same_network(role, stored)
        for fragment in role.shards.fragments:
            target = fragment.view([b.data for b in buffers])
            stop = fragment.start + fragment.numel
            target.copy_(stored.read(fragment.name, fragment.shape, fragment.start, stop))
    if role.has_mean and not has_mean:
        role.ema.restart()


def _check_same_network(role: TrainedRole, stored: RankFiles) -> None:
    """Look at the whole network, not at this rank's part, so that every rank refuses or none."""
    expected = role.shards.shapes
    for name in sorted(expected.keys() | stored.names()):
        if expected.get(name) != stored.shape(name):
            raise UserError(
                f"{stored.label}: {name} has shape {stored.shape(name)} there and "
                f"{expected.get(name)} here; the checkpoint belongs to another network"
            )
