"""Configurations of the training programs of MDLM, Duo, SDTT and SEDD."""

from typing import Any

from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.reader import Reader, Stated, stated_only
from idlm_ds.registry.families import FAMILIES


def state_training(config: Reader, root: str = "", *, default: str | None = None) -> Stated:
    """Read the configuration at ``root``, a path that ends in a dot, or empty for the whole.

    The family is ``default`` where none is named.
    """
    names = ("algo.name", "parameterization", "parameterization.name")
    named = (_published_family(config.text(root + name)) for name in names)
    flags = (config.flag(root + name) for name in ("algo.time_conditioning", "time_conditioning"))
    return Stated(
        family=next((name for name in named if name), default),
        process=config.process(root),
        sizes=config.integers(
            hidden=f"{root}model.hidden_size",
            cond=f"{root}model.cond_dim",
            blocks=f"{root}model.n_blocks",
            heads=f"{root}model.n_heads",
        ),
        options=config.numbers(dropout=f"{root}model.dropout"),
        time_conditioning=next((flag for flag in flags if flag is not None), None),
        length=config.integer(f"{root}model.length"),
    )


def _published_family(name: str) -> str | None:
    rows = FAMILIES.values()
    return next((row.name for row in rows if name in (row.name, *row.published_as)), None)


def training_config(about: Description) -> dict[str, Any]:
    """Fields of a configuration."""
    sees_time = about.sizes["time_conditioning"]
    model = stated_only(
        hidden_size=about.sizes["hidden"],
        cond_dim=about.sizes["cond"],
        n_blocks=about.sizes["blocks"],
        n_heads=about.sizes["heads"],
        length=about.length,
        dropout=about.sizes.get("dropout"),
    )
    algo = stated_only(name=about.family, time_conditioning=sees_time)
    process = stated_only(process=dict(about.process) or None)
    return {"model": model, "algo": algo, "time_conditioning": sees_time, **process}
