"""What is known of a model that was read, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idlm_ds.checkpoints.formats.reader import Stated
from idlm_ds.checkpoints.tensors import LazyTensor, NamedTensors


@dataclass(frozen=True, slots=True)
class RunningMean:
    """Where a running mean of the weights came from."""

    decay: float | None
    updates: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What a file or folder holds."""

    layout: str
    """A name of ``registry.layouts``."""

    kind: str
    """Architecture, a name of ``registry.networks``."""

    family: str | None
    """Diffusion family it was trained in, where that is stated."""

    process: Mapping[str, Any]
    """Family, schedule and the like, as far as stated; keys of a recipe's ``process``."""

    sizes: Mapping[str, Any]
    """Arguments of the network's configuration class; unknown ones are left out."""

    vocab_size: int

    mask_id: int | None
    """None where the family has no mask, or is unknown."""

    length: int | None
    """Positions of a training sequence, where that is stated."""

    dtype: str
    """What the weights are stored as."""

    parameters: int
    """Numbers in the network."""

    ema: RunningMean | None
    """The running mean that training kept beside the weights, used or not."""

    is_ema: bool
    """Whether the weights are that running mean."""

    stripped: tuple[str, ...]
    """Prefixes that were stripped from names."""

    ignored: tuple[str, ...]
    """Stored names of tensors that are not read."""

    files: tuple[Path, ...]
    """All that was opened."""

    @property
    def latent(self) -> int:
        """Entries of a student's latent; 0 for a network without one."""
        return int(self.sizes.get("latent", 0))


@dataclass(frozen=True, slots=True)
class PublicModel:
    """A description, and the weights under the names of the network."""

    about: Description
    weights: NamedTensors


@dataclass(frozen=True, kw_only=True, slots=True)
class RawCheckpoint:
    """Contents of a checkpoint before validation against a network."""

    path: Path
    layout: str
    kind: str
    stated: Stated
    files: tuple[Path, ...]

    tensors: Mapping[str, LazyTensor]
    """By stored name."""

    ignored: tuple[str, ...] = ()
    ema: RunningMean | None = None

    shadow: Sequence[LazyTensor] = ()
    """The running mean's tensors, in the order of the network's parameters."""

    problems: list[str] = field(default_factory=list)
    """Problems so far."""
