"""Hugging Face folders of LLaDA."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, final

from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.folder import FolderFormat
from idlm_ds.checkpoints.formats.reader import Reader, Stated, stated_only
from idlm_ds.errors import UserError
from idlm_ds.models.llada import LLaDAConfig
from idlm_ds.registry.families import FAMILIES
from idlm_ds.registry.table import default

MODEL_TYPE, ARCHITECTURE = "llada", "LLaDAModelLM"

OFF = (
    "alibi",
    "include_bias",
    "include_qkv_bias",
    "bias_for_layer_norm",
    "input_emb_norm",
    "attention_layer_norm",
    "scale_logits",
    "weight_tying",
    "flash_attention",
)
ON = ("rope", "rope_full_precision", "layer_norm_with_affine")
"""Switches of the release that are constants of the architecture."""


@final
class LLaDAFolder(FolderFormat):
    """Sizes under the names of the release."""

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """See base class."""
        names = fields.get("architectures")
        is_named = isinstance(names, list) and ARCHITECTURE in names
        return is_named or fields.get("model_type") == MODEL_TYPE

    def state(self, config: Reader) -> Stated:
        """See base class; variants with other arithmetic are refused."""
        vocabulary = "vocab_size" if config.value("embedding_size") is None else "embedding_size"
        sizes = config.integers(
            vocab_size=vocabulary,
            hidden="d_model",
            blocks="n_layers",
            heads="n_heads",
            ffn="mlp_hidden_size",
            latent="latent",
        )
        if config.integer("n_kv_heads") not in (None, sizes.get("heads")):
            raise UserError(
                f"{config.label}: LLaDA with fewer n_kv_heads than n_heads is not known here"
            )
        for key in ("alibi", "scale_logits", "input_emb_norm"):
            if config.flag(key):
                raise UserError(f"{config.label}: LLaDA with {key} is not known")
        return Stated(
            family=config.family() or default(FAMILIES),
            process=config.process(),
            sizes=sizes,
            options=config.numbers(
                rope_base="rope_theta", norm_eps="rms_norm_eps", latent_rate="latent_rate"
            ),
            time_conditioning=False,
            length=config.integer("max_sequence_length"),
            mask_id=config.integer("mask_token_id"),
        )

    def config(self, about: Description) -> dict[str, Any]:
        """See base class."""
        sizes = asdict(LLaDAConfig(**about.sizes))
        return stated_only(
            architectures=[ARCHITECTURE],
            model_type=MODEL_TYPE,
            block_type="llama",
            layer_norm_type="rms",
            activation_type="silu",
            d_model=sizes["hidden"],
            n_layers=sizes["blocks"],
            n_heads=sizes["heads"],
            n_kv_heads=sizes["heads"],
            mlp_hidden_size=sizes["ffn"],
            vocab_size=about.vocab_size,
            embedding_size=about.vocab_size,
            mask_token_id=about.mask_id,
            max_sequence_length=about.length,
            rms_norm_eps=sizes["norm_eps"],
            rope_theta=sizes["rope_base"],
            latent=about.sizes.get("latent"),
            latent_rate=about.sizes.get("latent_rate"),
            process=dict(about.process) or None,
            **dict.fromkeys(OFF, False),
            **dict.fromkeys(ON, True),
        )
