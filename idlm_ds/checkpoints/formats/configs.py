"""What the layouts can say of a model, and how they say it; the reverse of ``stated.py``."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from idlm_ds.checkpoints.formats.description import LAYOUTS, Description
from idlm_ds.checkpoints.formats.stated import MASKED
from idlm_ds.errors import UserError
from idlm_ds.models.llada import LLaDAConfig

NEEDS_FAMILY = frozenset({"idlm_ds", "sedd", "sdtt", "sedd_training"})
ABSORBING = frozenset({"sedd", "sdtt", "sedd_training"})
OF_SEDD = frozenset({"sedd", "sedd_training"})
"""Layouts of SEDD's program, whose mask comes on top of its tokens."""


def check_fits(about: Description, layout: str) -> None:
    """Hold a model against what a layout can say.

    Raises:
        UserError: It is another kind of network, or something that the layout needs is not told.
    """
    target = LAYOUTS[layout]
    if layout != "idlm_ds" and (about.kind == "llada") != (layout == "llada"):
        raise UserError(f"--to {layout}: a {target} does not hold a network of kind {about.kind}")
    if layout in NEEDS_FAMILY and about.family is None:
        raise UserError(f"--to {layout}: nothing tells the family; give --family")
    if layout == "idlm_ds" and about.length is None:
        raise UserError("--to idlm_ds: nothing tells the length of a sequence; give --length")
    if layout in ABSORBING and about.family not in MASKED:
        raise UserError(
            f"--to {layout}: a {target} holds networks of {' or '.join(MASKED)}, not of "
            f"{about.family}"
        )
    if layout in OF_SEDD and about.family != "sedd":
        raise UserError(
            f"--to {layout}: a {target} gives ratios of probabilities, and one of {about.family} "
            "gives words"
        )
    if layout in OF_SEDD and about.mask_id != about.vocab_size - 1:
        raise UserError(f"--to {layout}: the mask must be the last id, not {about.mask_id}")
    if layout == "sedd_training" and not about.sizes["time_conditioning"]:
        raise UserError(
            "--to sedd_training: it has no room to say that the network is not shown the time"
        )


def _hugging_face(about: Description) -> dict[str, Any]:
    return _told(
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
        mask_token_id=about.mask_id,
        process=dict(about.process) or None,
    )


def training_config(about: Description) -> dict[str, Any]:
    """Configuration of the training programs."""
    is_told_time = about.sizes["time_conditioning"]
    model = _told(
        hidden_size=about.sizes["hidden"],
        cond_dim=about.sizes["cond"],
        n_blocks=about.sizes["blocks"],
        n_heads=about.sizes["heads"],
        length=about.length,
        dropout=about.sizes.get("dropout"),
    )
    algo = _told(name=about.family, time_conditioning=is_told_time)
    process = _told(process=dict(about.process) or None)
    return {"model": model, "algo": algo, "time_conditioning": is_told_time, **process}


def _sedd(about: Description) -> dict[str, Any]:
    fields = training_config(about)
    schedule = {"type": about.process.get("schedule", "loglinear")}
    bounds = {k: about.process[k] for k in ("sigma_min", "sigma_max") if k in about.process}
    return {
        "tokens": about.vocab_size - 1,
        "graph": {"type": "absorb"},
        "noise": schedule | bounds,
        "model": fields["model"] | {"scale_by_sigma": True},
        "time_conditioning": fields["time_conditioning"],
    }


def _llada(about: Description) -> dict[str, Any]:
    sizes = asdict(LLaDAConfig(**about.sizes))
    off = ("alibi", "include_bias", "include_qkv_bias", "bias_for_layer_norm", "input_emb_norm",
           "attention_layer_norm", "scale_logits", "weight_tying", "flash_attention")  # fmt: skip
    on = ("rope", "rope_full_precision", "layer_norm_with_affine")
    return _told(
        architectures=["LLaDAModelLM"],
        model_type="llada",
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
        process=dict(about.process) or None,
        **dict.fromkeys(off, False),
        **dict.fromkeys(on, True),
    )


def _told(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


FOLDERS: Mapping[str, tuple[Callable[[Description], dict[str, Any]], str]] = {
    "hugging_face": (_hugging_face, "backbone."),
    "sedd": (_sedd, ""),
    "sdtt": (lambda about: {"config": training_config(about)}, "backbone."),
    "llada": (_llada, ""),
}
"""What is in ``config.json``, and what stands in front of names."""
