"""Saved diffusion models of any layout, as parts of a run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idlm_ds.build.locate import locate, revision_of
from idlm_ds.build.networks import Network, known_network
from idlm_ds.build.processes import check_family, read_family
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.checkpoints.formats.description import Description, PublicModel
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.checkpoints.formats.reader import default_mask
from idlm_ds.checkpoints.model_folder import NetworkCard
from idlm_ds.checkpoints.tensors import fingerprint
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.weights import WeightSource, fill_weights
from idlm_ds.errors import UserError
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Process
from idlm_ds.processes.by_name import make_process
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.registry.families import FAMILIES
from idlm_ds.registry.layouts import LAYOUTS
from idlm_ds.registry.networks import NETWORKS


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model that was located and described; no weight is read."""

    spec: str
    """As the user named it."""

    key: str
    """Where the user named it: a recipe's key or an option."""

    path: Path
    content: PublicModel
    revision: str | None
    """Commit, for a model of the hub."""

    @property
    def about(self) -> Description:
        """What the file or folder says."""
        return self.content.about

    @property
    def weights(self) -> WeightSource:
        """Its running mean where it has one."""
        return self.content.weights

    @property
    def fingerprint(self) -> str:
        """Short hash of all that was opened, or the commit."""
        return self.revision or fingerprint(*self.about.files)

    @property
    def origin(self) -> dict[str, Any]:
        """Where it came from, to be written beside what is made of it."""
        return {"model": self.spec, "layout": self.about.layout, "revision": self.revision}

    def process(self, family: ProcessSection) -> Process:
        """Build a recipe's family over this model's vocabulary.

        Raises:
            UserError: The model was trained in another family, with other noise or another mask.
        """
        check_family(family, self.about.process, self.path)
        return make_process(asdict(family), self.about.vocab_size, self._mask(family))

    def _mask(self, family: ProcessSection) -> int:
        stated, vocab_size = self.about.mask_id, self.about.vocab_size
        if stated is not None and family.mask_id not in (None, stated):
            raise UserError(
                f"process.mask_id: {family.mask_id}, but the mask of {self.path} is {stated}"
            )
        if family.mask_id is not None and family.mask_id >= vocab_size:
            raise UserError(
                f"process.mask_id: {family.mask_id}, but {self.path} has a vocabulary of "
                f"{vocab_size}"
            )
        known = family.mask_id if stated is None else stated
        return default_mask(vocab_size) if known is None else known

    def network(
        self, family: ProcessSection, length: int, *, checkpoint_activations: bool = False
    ) -> Network:
        """Describe the network; what the file does not state is what the recipe says."""
        sizes = {"kind": self.about.kind, **self.about.sizes}
        row = FAMILIES[family.name]
        if NETWORKS[self.about.kind].has_time_conditioning:
            sizes.setdefault("time_conditioning", row.sees_time)
        mask = {"mask_id": self._mask(family) if row.is_masked else None}
        process = read_family({**asdict(family), **self.about.process, **mask}, self.path)
        length = self.about.length or length
        card = NetworkCard(network=sizes, process=asdict(process), length=length)
        return known_network(card, checkpoint_activations=checkpoint_activations)

    def check_length(self, length: int) -> None:
        """Check a recipe's ``data.length`` against the longest sequence the model knows.

        Raises:
            UserError: It is longer.
        """
        if self.about.length is not None and length > self.about.length:
            raise UserError(
                f"data.length: {length}, but {self.path} was trained on sequences of "
                f"{self.about.length}"
            )

    def check_tokenizer(self, tokenizer: Tokenizer, process: Process) -> None:
        """Check that a tokenizer matches the model's vocabulary.

        The vocabulary may have one id more than the tokenizer, the mask or one that never occurs.
        Where it is padded, the mask is one of the tokenizer's.

        Raises:
            UserError: They do not belong together.
        """
        num_tokens, size = len(tokenizer), self.about.vocab_size
        mask = process.mask_id if isinstance(process, Absorbing) else None
        if NETWORKS[self.about.kind].has_padded_vocabulary:
            fits = mask is not None and mask < num_tokens <= size
        else:
            has_its_mask = mask is None or mask < num_tokens or mask == size - 1
            fits = num_tokens in (size, size - 1) and has_its_mask
        if not fits:
            masked = "" if mask is None else f" with mask {mask}"
            raise UserError(
                f"{self.key}: {self.path} has a vocabulary of {size}{masked}, but the tokenizer "
                f"{tokenizer.folder} has {num_tokens} words; it takes {size - 1} and one more, or "
                f"{size}"
            )
        self._check_own_tokenizer(tokenizer)

    def _check_own_tokenizer(self, tokenizer: Tokenizer) -> None:
        if not (self.path / "tokenizer.json").is_file():
            return
        own = Tokenizer(self.path, self.key)
        if len(own) == len(tokenizer) and own.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"{self.key}: {self.path} was trained with tokenizer {own.fingerprint[:12]}, but "
                f"{tokenizer.folder} is {tokenizer.fingerprint[:12]}"
            )


def find_model(spec: str, key: str) -> SavedModel:
    """Open a model by path or name; no weight is read yet.

    A file or folder of any layout, ``assets:NAME`` or ``hf:OWNER/NAME[@REVISION]``.

    Raises:
        UserError: It is missing, damaged or of no known layout; names ``key``.
    """
    path = locate(spec, key)
    try:
        content = read_public(path)
    except UserError as error:
        raise type(error)(f"{key}: {error}") from error
    return SavedModel(spec, key, path, content, revision_of(spec, path))


def family_of(model: SavedModel, name: str | None = None) -> ProcessSection:
    """Read the family that a model states; ``name`` for models that state none.

    Raises:
        UserError: It states none and none is given, or states another or an unknown one.
    """
    trained = model.about.process.get("name", name)
    if trained is None:
        layout = LAYOUTS[model.about.layout].description
        raise UserError(f"{model.path}: a {layout} that tells no family; pass --process")
    if name not in (None, trained):
        raise UserError(f"--process: {name!r}, but {model.path} was trained with {trained!r}")
    return read_family({**model.about.process, "name": trained}, model.path)


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A saved model and a tokenizer that match; no weight is read."""

    model: SavedModel
    family: ProcessSection
    process: Process
    tokenizer: Tokenizer
    length: int
    """Positions of a sequence."""

    @property
    def latent(self) -> int:
        """Entries of its latent; 0 for a network without one."""
        return self.model.about.latent

    def load(self, device: torch.device) -> nn.Module:
        """Build the network and fill it, for inference."""
        network = self.model.network(self.family, self.length).make()
        fill_weights(network, self.model.weights)
        return network.to(device).eval().requires_grad_(False)


def open_model(
    spec: str, *, process: str | None = None, tokenizer: str | None = None, length: int | None
) -> OpenModel:
    """Open what ``--checkpoint`` names.

    Args:
        spec: See ``find_model``.
        process: ``--process``: the family, for a model that states none.
        tokenizer: ``--tokenizer``; None for the model's own.
        length: ``--length``; None for as many positions as in training.

    Raises:
        UserError: Model or tokenizer cannot be used or do not fit, or no length is known.
    """
    model = find_model(spec, "--checkpoint")
    family = family_of(model, process)
    built = model.process(family)
    loaded = load_tokenizer(tokenizer or str(model.path), "--tokenizer")
    model.check_tokenizer(loaded, built)
    length = length or model.about.length
    if length is None:
        raise UserError(f"--length: {model.path} does not tell how long its sequences were")
    return OpenModel(model, family, built, loaded, length)
