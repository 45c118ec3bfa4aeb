"""Hugging Face folders of MDLM, Duo and IDLM."""

from collections.abc import Mapping
from typing import Any, final

from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.folder import FolderFormat
from idlm_ds.checkpoints.formats.reader import Reader, Stated, stated_only
from idlm_ds.registry.families import FAMILIES


@final
class HuggingFace(FolderFormat):
    """Sizes at the top of ``config.json``; the family in names of the model and its classes."""

    prefix = "backbone."

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """See base class; those of training programs have their sizes one level deeper."""
        is_flat = fields.keys().isdisjoint({"model", "config"})
        return is_flat and {"hidden_dim", "n_blocks"} <= fields.keys()

    def state(self, config: Reader) -> Stated:
        """See base class."""
        names = [config.text("model_type"), config.text("_name_or_path")]
        names += [_flat(config.value(key)) for key in ("architectures", "auto_map")]
        return Stated(
            family=config.family() or family_in(" ".join(names).lower()),
            process=config.process(),
            sizes=config.integers(
                vocab_size="vocab_size",
                hidden="hidden_dim",
                cond="cond_dim",
                blocks="n_blocks",
                heads="n_heads",
                latent="latent",
            ),
            options=config.numbers(dropout="dropout", latent_rate="latent_rate"),
            time_conditioning=config.flag("time_conditioning"),
            length=config.integer("model_length"),
            mask_id=config.integer("mask_token_id"),
        )

    def config(self, about: Description) -> dict[str, Any]:
        """See base class."""
        return stated_only(
            model_type=about.family,
            vocab_size=about.vocab_size,
            model_length=about.length,
            hidden_dim=about.sizes["hidden"],
            cond_dim=about.sizes["cond"],
            n_blocks=about.sizes["blocks"],
            n_heads=about.sizes["heads"],
            mlp_ratio=about.sizes["mlp_ratio"],
            dropout=about.sizes.get("dropout"),
            time_conditioning=about.sizes["time_conditioning"],
            latent=about.sizes.get("latent"),
            latent_rate=about.sizes.get("latent_rate"),
            mask_token_id=about.mask_id,
            process=dict(about.process) or None,
        )


def family_in(text: str) -> str | None:
    """Find a family in the names of a model and its classes; later ones count first."""
    families = list(FAMILIES.values())[::-1]
    named = [row.name for row in families if row.name in text]
    hinted = [row.name for row in families if any(word in text for word in row.found_in_names)]
    return next(iter([*named, *hinted]), None)


def _flat(value: Any) -> str:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return " ".join(part for part in parts if isinstance(part, str))
