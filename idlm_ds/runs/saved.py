"""The model folder that a run leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from idlm_ds.build.networks import Network
from idlm_ds.checkpoints.formats.content import whole
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.checkpoints.rank_files import RankFiles
from idlm_ds.checkpoints.weight_files import Stream
from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import TrainedRole
from idlm_ds.errors import UserError


def save_model(
    folder: Path,
    checkpoint: Path,
    role: TrainedRole,
    network: Network,
    tokenizer: Tokenizer,
    *,
    world: World,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write the running mean of a network, in float32, and its tokenizer.

    It is read from the files of the ranks, a tensor at a time, so no process ever holds more of it
    than one file of the folder.

    Collective: every rank must call; the first one writes.

    Args:
        folder: The model folder.
        checkpoint: The run's last checkpoint.
        role: The network, whose name is that of its folder in the checkpoint.
        network: Its card, and how names on disk begin.
        tokenizer: Goes beside the weights.
        world: The process group.
        origin: How the network came about.

    Raises:
        UserError: The folder cannot be written, the same on all ranks.
    """
    problem = None
    if world.is_first:
        stored, prefix = RankFiles(checkpoint / role.name), network.prefix
        empty = {
            name.removeprefix(prefix): torch.empty(shape, dtype=torch.float32, device="meta")
            for name, shape in role.shards.shapes.items()
        }
        weights = Stream(empty, lambda name: whole(stored, prefix + name, torch.float32))
        try:
            write_network(folder, network.card, weights, origin=origin)
            tokenizer.save(folder)
        except OSError as error:
            problem = f"{folder}: cannot be written: {error.strerror or error}"
    if problem := world.agree(problem):
        raise UserError(problem)
    if world.is_first:
        say(f"{folder.name}: {folder}")
