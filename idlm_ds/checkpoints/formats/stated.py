"""What the configurations of published models say of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from idlm_ds.checkpoints.pickle_reader.allowed import Inert
from idlm_ds.errors import UserError

MAX_BLOCKS = 1000

BERT_VOCABULARY, BERT_MASK = 30_522, 103

FAMILIES = {
    "mdlm": "mdlm",
    "subs": "mdlm",
    "sedd": "sedd",
    "udlm": "udlm",
    "duo": "duo",
    "duo_base": "duo",
    "distillation": "duo",
}
"""What training programs call a diffusion family; ``distillation`` is DCD, which trains Duo's."""

MASKED = ("mdlm", "sedd")
TOLD_TIME = {"mdlm": False, "sedd": True, "udlm": True, "duo": True}
"""Whether networks of a family are shown the noise level, where nothing says otherwise."""


def default_mask(vocab_size: int) -> int:
    """The mask's id where nothing tells it."""
    return BERT_MASK if vocab_size == BERT_VOCABULARY else vocab_size - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """What a configuration says; what it does not is left out, or None."""

    family: str | None = None
    process: Mapping[str, Any] = field(default_factory=dict)
    """Schedule and other settings of the family, as this package calls them."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)
    """Other arguments of the network."""

    time_conditioning: bool | None = None
    length: int | None = None
    mask_id: int | None = None

    def mask(self, vocab_size: int) -> int | None:
        """The mask's id, where the family has one."""
        if self.mask_id is not None or self.family not in MASKED:
            return self.mask_id
        return default_mask(vocab_size)

    def is_told_time(self) -> bool | None:
        """Whether the network is shown the noise level, as stated or as its family does."""
        if self.time_conditioning is not None:
            return self.time_conditioning
        return TOLD_TIME.get(self.family or "")


class Reader:
    """Values of a nested configuration, JSON or out of a pickle, by path."""

    def __init__(self, label: str, tree: Any) -> None:
        self.label = label
        self._tree = tree

    def value(self, path: str) -> Any:
        """What is at a dotted path; None where nothing is, or only a reference to elsewhere."""
        node = self._tree
        for key in path.split("."):
            node = _entries(node).get(key)
        node = _bare(node)
        return None if isinstance(node, str) and node.startswith(("${", "???")) else node

    def integer(self, path: str, most: int = 2**31) -> int | None:
        """A positive integer.

        Raises:
            UserError: Something else is there.
        """
        value = self.value(path)
        if value is None or (type(value) is int and 0 < value <= most):
            return value
        raise UserError(f"{self.label}: {path} is no integer between 1 and {most}")

    def number(self, path: str) -> float | None:
        """A number that is not negative.

        Raises:
            UserError: Something else is there.
        """
        value = self.value(path)
        if value is None or (type(value) in (int, float) and 0 <= value < 2**31):
            return value
        raise UserError(f"{self.label}: {path} is no number from 0")

    def flag(self, path: str) -> bool | None:
        """True or False.

        Raises:
            UserError: Something else is there.
        """
        value = self.value(path)
        if value is None or isinstance(value, bool):
            return value
        raise UserError(f"{self.label}: {path} is neither true nor false")

    def text(self, path: str) -> str:
        """Text, empty where there is none."""
        value = self.value(path)
        return value if isinstance(value, str) else ""

    def integers(self, **paths: str) -> dict[str, int]:
        """Those that are there, under other names."""
        found = {name: self.integer(path) for name, path in paths.items() if name != "blocks"}
        if "blocks" in paths:
            found["blocks"] = self.integer(paths["blocks"], MAX_BLOCKS)
        return {name: value for name, value in found.items() if value is not None}

    def numbers(self, **paths: str) -> dict[str, float]:
        """Those that are there, under other names."""
        found = {name: self.number(path) for name, path in paths.items()}
        return {name: value for name, value in found.items() if value is not None}


def _bare(node: Any) -> Any:
    # A value of OmegaConf.
    state = node.state if isinstance(node, Inert) else None
    return state.get("_val", node) if isinstance(state, dict) else node


def _entries(node: Any) -> Mapping[Any, Any]:
    if isinstance(node, Inert):
        # A dictionary of OmegaConf, or any class derived from ``dict``.
        content = node.state.get("_content") if isinstance(node.state, dict) else None
        return content if isinstance(content, dict) else node.entries
    return node if isinstance(node, dict) else {}


def state_own(config: Reader) -> Stated:
    """Configuration of this package.

    Raises:
        UserError: It names no diffusion family.
    """
    sizes = config.integers(
        **{k: f"network.{k}" for k in ("vocab_size", "hidden", "blocks", "heads", "cond", "ffn")}
    )
    ratio = config.integer("network.mlp_ratio")
    if ratio is not None and "hidden" in sizes:
        sizes["inner"] = ratio * sizes["hidden"]
    family, vocab_size = _named(config), sizes.get("vocab_size")
    if family is None:
        raise UserError(f"{config.label}: process.name names no diffusion family")
    last = vocab_size - 1 if vocab_size and family in MASKED else None
    return Stated(
        family=family,
        process=_settings(config),
        sizes=sizes,
        mask_id=config.integer("process.mask_id") or last,
        options=config.numbers(**{k: f"network.{k}" for k in ("dropout", "rope_base", "norm_eps")}),
        time_conditioning=config.flag("network.time_conditioning") or False,
        length=config.integer("length"),
    )


def state_hugging_face(config: Reader) -> Stated:
    """Configuration of the Hugging Face classes of MDLM, Duo and IDLM."""
    told = [config.text("model_type"), config.text("_name_or_path")]
    for key in ("architectures", "auto_map"):
        told.append(_flat(config.value(key)))
    words = " ".join(told).lower()
    family = next((f for f in ("duo", "sedd", "mdlm") if f in words), None)
    return Stated(
        family=_named(config) or ("duo" if family is None and "dcd" in words else family),
        process=_settings(config),
        sizes=config.integers(
            vocab_size="vocab_size",
            hidden="hidden_dim",
            cond="cond_dim",
            blocks="n_blocks",
            heads="n_heads",
        ),
        options=config.numbers(dropout="dropout"),
        time_conditioning=config.flag("time_conditioning"),
        length=config.integer("model_length"),
        mask_id=config.integer("mask_token_id"),
    )


def _named(config: Reader) -> str | None:
    family = config.text("process.name")
    return family if family.isidentifier() else None


def _settings(config: Reader, root: str = "") -> dict[str, Any]:
    settings = config.value(f"{root}process")
    return dict(settings) if isinstance(settings, dict) else {}


def _flat(value: Any) -> str:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return " ".join(part for part in parts if isinstance(part, str))


def state_training(config: Reader, root: str = "", *, default: str | None = None) -> Stated:
    """Configuration of the training programs of MDLM, Duo, SDTT and SEDD.

    Args:
        config: Where to look.
        root: Path of the configuration in it, with a dot at its end.
        default: The family, where none is named.
    """
    names = ("algo.name", "parameterization", "parameterization.name")
    named = (FAMILIES.get(config.text(root + name)) for name in names)
    flags = (config.flag(root + name) for name in ("algo.time_conditioning", "time_conditioning"))
    return Stated(
        family=next((name for name in named if name), default),
        process=_settings(config, root),
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


def state_sedd(config: Reader) -> Stated:
    """Configuration of SEDD on Hugging Face; the mask comes on top of its tokens.

    Raises:
        UserError: It was trained with other noise than a mask.
    """
    if config.text("graph.type") != "absorb":
        raise UserError(f"{config.label}: SEDD with a graph.type other than absorb is not known")
    stated, tokens = state_training(config), config.integer("tokens")
    sizes = {} if tokens is None else {"vocab_size": tokens + 1}
    return replace(stated, family="sedd", sizes={**stated.sizes, **sizes})


def state_llada(config: Reader) -> Stated:
    """Configuration of LLaDA.

    Raises:
        UserError: It describes a variant with other arithmetic.
    """
    vocabulary = "vocab_size" if config.value("embedding_size") is None else "embedding_size"
    sizes = config.integers(
        vocab_size=vocabulary,
        hidden="d_model",
        blocks="n_layers",
        heads="n_heads",
        ffn="mlp_hidden_size",
    )
    if config.integer("n_kv_heads") not in (None, sizes.get("heads")):
        raise UserError(
            f"{config.label}: LLaDA with fewer n_kv_heads than n_heads is not known here"
        )
    for key in ("alibi", "scale_logits", "input_emb_norm"):
        if config.flag(key):
            raise UserError(f"{config.label}: LLaDA with {key} is not known")
    return Stated(
        family=_named(config) or "mdlm",
        process=_settings(config),
        sizes=sizes,
        options=config.numbers(rope_base="rope_theta", norm_eps="rms_norm_eps"),
        time_conditioning=False,
        length=config.integer("max_sequence_length"),
        mask_id=config.integer("mask_token_id"),
    )
