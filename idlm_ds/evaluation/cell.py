"""Settings that determine one set of samples."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One set of samples, by everything it depends on."""

    model: str
    """As the user named it."""

    source: str
    """Fingerprint of the weights or texts."""

    family: str | None
    """Diffusion family; None for text that no diffusion model wrote."""

    sampler: str | None
    """With its tail, as printed; None for text that nothing sampled."""

    steps: int | None
    precision: str | None
    temperature: float | None
    nucleus: float | None
    latent: int | None = None
    """Entries of the network's latent; None for a network without one, and for other text."""

    relaxation: str | None = None
    """What of a student's sample Duo noised when the network learned; None for other networks.
    No part of the key: samples depend on the weights alone."""

    seed: int
    num_samples: int
    length: int
    tokenizer: str
    """Fingerprint of the tokenizer."""

    @property
    def key(self) -> str:
        """File name: readable, and a hash of every setting but the model's name."""
        settings = asdict(self)
        del settings["model"], settings["relaxation"]
        if self.latent is None:
            del settings["latent"]
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        parts = [self.model.rstrip("/").rpartition("/")[2], self.sampler, self.steps]
        name = "-".join(str(part) for part in (*parts, self.precision) if part is not None)
        return f"{re.sub(r'[^A-Za-z0-9._+-]+', '_', name)[:60]}-s{self.seed}-{digest}"


def by_setting(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Group cells that differ in their seed only."""
    groups: dict[Cell, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(replace(cell, seed=0), []).append(cell)
    return list(groups.values())
