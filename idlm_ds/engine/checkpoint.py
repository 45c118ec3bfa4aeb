"""One folder per checkpoint with everything a run needs to go on.

Weights, Adam moments and running means are stored by parameter name and range, so a checkpoint
does not depend on the ZeRO stage or the number of ranks that wrote it. All files are safetensors
or JSON.
"""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.rank_files import RankFiles
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import TrainedRole
from idlm_ds.errors import UserError

STATE = "loop.json"


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
    """
    folder = Path(world.agree(str(transaction.begin(root, step)) if world.is_first else None))
    entries = {}
    for name, role in roles.items():
        path = folder / name / f"rank-{world.rank:05d}.safetensors"
        _make_folder(path.parent)
        _write_shard(path, role)
        entries[str(path.relative_to(folder))] = transaction.describe(path)
    if world.is_first:
        updates = {name: role.updates for name, role in roles.items()}
        path = folder / STATE
        path.write_text(json.dumps({**state, "step": step, "updates": updates}, indent=1))
        entries[STATE] = transaction.describe(path)
    merged = {k: v for part in world.gather(entries) for k, v in part.items()}
    if world.is_first:
        transaction.commit(folder, merged, step)
        transaction.prune(root, keep, newest=step)
    world.barrier()
    return root / f"{transaction.PREFIX}{step}"


def find_checkpoint(root: Path, *, world: World) -> tuple[Path | None, list[str]]:
    """Return the newest valid checkpoint, and what was wrong with newer ones.

    Collective: the first rank looks, all get its answer.
    """
    newest, problems = None, []
    if world.is_first:
        for step in reversed(transaction.steps(root)):
            folder = root / f"{transaction.PREFIX}{step}"
            problem = transaction.problem_with(folder)
            if problem is None:
                newest = str(folder)
                break
            problems.append(problem)
    newest, problems = world.agree((newest, problems))
    return (Path(newest) if newest else None), problems


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
        _read_shards(folder / name, role)
        role.updates = int(state["updates"][name])
        role.shards.set_update_count(role.updates)
        role.shards.publish()
    return state


def _make_folder(folder: Path) -> None:
    """Make a folder inside a checkpoint that the first rank has begun."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output: cannot write {folder} on {socket.gethostname()}: {error.strerror}"
        ) from error


def _buffers(role: TrainedRole) -> dict[str, list[Tensor]]:
    return {"weight": role.shards.weights, **role.shards.moments(), **role.kept}


def _write_shard(path: Path, role: TrainedRole) -> None:
    fragments = role.shards.fragments
    tensors = {
        f"{kind}:{f.name}": f.view(buffers).detach().cpu().clone()
        for kind, buffers in _buffers(role).items()
        for f in fragments
    }
    places = {f.name: {"start": f.start, "shape": f.shape} for f in fragments}
    save_file(tensors, path, metadata={"fragments": json.dumps(places)})


@torch.no_grad()
def _read_shards(folder: Path, role: TrainedRole) -> None:
    for kind, buffers in _buffers(role).items():
        stored = RankFiles(folder, kind)
        _check_same_network(role, stored)
        for fragment in role.shards.fragments:
            target = fragment.view([b.data for b in buffers])
            stop = fragment.start + fragment.numel
            target.copy_(stored.read(fragment.name, fragment.shape, fragment.start, stop))


def _check_same_network(role: TrainedRole, stored: RankFiles) -> None:
    """Look at the whole network, not at this rank's part, so that every rank refuses or none."""
    expected = role.shards.shapes
    for name in sorted(expected.keys() | stored.names()):
        if expected.get(name) != stored.shape(name):
            raise UserError(
                f"{stored.label}: {name} has shape {stored.shape(name)} there and "
                f"{expected.get(name)} here; the checkpoint belongs to another network"
            )
