"""The sections about noise and networks; see ``sections.py`` for the others."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from idlm_ds.recipes.section import Section


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSection(Section):
    """How clean text turns into noise."""

    prefix: ClassVar[str] = "process"
    name: Literal["mdlm", "sedd", "udlm", "duo"]
    """Diffusion family: mdlm or sedd (absorbing mask), udlm (uniform), duo (uniform, Gaussian)."""
    schedule: Literal["loglinear", "cosine", "geometric"] = "loglinear"
    """How the survival probability falls with time."""
    eps: float = 1e-3
    """Survival probability left at time 1 (loglinear, cosine); in (0, 1)."""
    sigma_min: float = 1e-4
    """Total noise at time 0 (geometric); above 0."""
    sigma_max: float = 20.0
    """Total noise at time 1 (geometric); above sigma_min."""
    clock: Literal["gaussian", "loglinear"] = "gaussian"
    """Training time of duo: gaussian (gamma linear in its range) or loglinear (in alpha)."""
    gamma_min: float = -3.55
    """Log noise-to-signal ratio at time 0 (duo, gaussian clock)."""
    gamma_max: float = -1.85
    """Log noise-to-signal ratio at time 1 (duo, gaussian clock); above gamma_min."""
    tau: float = 1e-3
    """Temperature of the relaxed input (duo); above 0."""
    t_min: float = 1e-3
    """Smallest diffusion time drawn in training, where objective.t_min says no other; in [0, 1)."""
    mask_id: int | None = None
    """Token that stands for the mask (mdlm, sedd); null = what the model says, or one more token
    than the tokenizer has."""

    def __post_init__(self) -> None:
        self._require("eps", 0 < self.eps < 1, "in (0, 1)")
        self._require("sigma_min", 0 < self.sigma_min < math.inf, "above 0")
        is_above = self.sigma_min < self.sigma_max < math.inf
        self._require("sigma_max", is_above, f"above process.sigma_min {self.sigma_min}")
        self._require("gamma_min", -40 < self.gamma_min < 40, "in (-40, 40)")
        is_above = self.gamma_min < self.gamma_max < 40
        self._require("gamma_max", is_above, f"in ({self.gamma_min}, 40)")
        self._require("tau", 0 < self.tau < math.inf, "above 0")
        self._require("t_min", 0 <= self.t_min < 1, "in [0, 1)")
        self._require("mask_id", self.mask_id is None or self.mask_id >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSection(Section):
    """The network that pretraining starts from."""

    prefix: ClassVar[str] = "model"
    kind: Literal["dit", "gpt2"] = "dit"
    """Architecture: dit (sees both sides) or gpt2 (sees what came before)."""
    hidden: int
    """Width of the residual stream, features; heads of even width must fill it."""
    blocks: int
    """Number of transformer blocks; at least 1."""
    heads: int
    """Attention heads per block; at least 1."""
    cond: int = 128
    """Width of the time embedding, features; at least 1."""
    mlp_ratio: int = 4
    """Width of the feed-forward layer as a multiple of hidden; at least 1."""
    dropout: float = 0.0
    """Probability of dropping a feature in training; in [0, 1)."""
    time_conditioning: bool = False
    """Whether the network is told the noise level."""
    init: str = ""
    """Model, as in teacher.path, whose weights to start from; empty = random ones."""

    def __post_init__(self) -> None:
        self._require_at_least(1, "hidden", "blocks", "heads", "cond", "mlp_ratio")
        fits = self.hidden % (2 * self.heads) == 0
        self._require("hidden", fits, f"model.heads {self.heads} times an even width")
        self._require("dropout", 0 <= self.dropout < 1, "in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSection(Section):
    """The network that is distilled."""

    prefix: ClassVar[str] = "teacher"
    path: str = "assets:teacher"
    """A model folder or file, hf:OWNER/NAME[@REVISION] of the Hugging Face hub, or assets:NAME for
    one that ships with the package."""

    def __post_init__(self) -> None:
        self._require_text("path")
