"""The arithmetic that ties a global batch to passes and processes."""

from idlm_ds.recipes.errors import RecipeError


def accumulation(*, global_batch: int, micro_batch: int, world: int) -> int:
    """Count the passes of ``micro_batch`` sequences each process makes before an update.

    Over all ``world`` processes, an update sees ``global_batch`` sequences.

    Raises:
        RecipeError: A count is below 1, or no whole number of passes gives ``global_batch``.
    """
    counts = {"train.global_batch": global_batch, "train.micro_batch": micro_batch, "world": world}
    for key, count in counts.items():
        if count < 1:
            raise RecipeError(f"{key}: must be at least 1, got {count}")
    per_pass = micro_batch * world
    passes, left_over = divmod(global_batch, per_pass)
    if left_over:
        near = [str(n * per_pass) for n in (passes, passes + 1) if n]
        raise RecipeError(
            f"train.global_batch: {global_batch} is not a multiple of train.micro_batch "
            f"{micro_batch} × {world} {'process' if world == 1 else 'processes'}; "
            f"nearest: {' or '.join(near)}"
        )
    return passes
