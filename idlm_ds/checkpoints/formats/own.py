"""Model folders of this package; ``model_folder.py`` has their parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.description import Description, RawCheckpoint
from idlm_ds.checkpoints.formats.folder import FolderFormat
from idlm_ds.checkpoints.formats.plans import planned
from idlm_ds.checkpoints.formats.reader import Reader, Stated
from idlm_ds.checkpoints.model_folder import FORMAT, NetworkCard, read_card, write_network
from idlm_ds.checkpoints.weight_files import Stream
from idlm_ds.errors import UserError
from idlm_ds.registry.families import is_masked


@final
class OwnFolder(FolderFormat):
    """A card, and weights under the names of the network."""

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """See base class."""
        return fields.get("format") == FORMAT

    def kind(self, fields: Mapping[str, Any]) -> str:
        """See base class."""
        return str(fields["network"].get("kind"))

    def read(self, path: Path, opened: Mapping[str, Any]) -> RawCheckpoint:
        """See base class."""
        kind = read_card(path).network.get("kind")
        if kind not in planned():
            raise UserError(f"{path}: network.kind must be one of {', '.join(planned())}")
        return super().read(path, opened)

    def state(self, config: Reader) -> Stated:
        """See base class; a card names a diffusion family."""
        names = ("vocab_size", "hidden", "blocks", "heads", "cond", "ffn", "latent")
        sizes = config.integers(**{name: f"network.{name}" for name in names})
        ratio = config.integer("network.mlp_ratio")
        if ratio is not None and "hidden" in sizes:
            sizes["inner"] = ratio * sizes["hidden"]
        family, vocab_size = config.family(), sizes.get("vocab_size")
        if family is None:
            raise UserError(f"{config.label}: process.name names no diffusion family")
        last = vocab_size - 1 if vocab_size and is_masked(family) else None
        options = ("dropout", "rope_base", "norm_eps", "latent_rate")
        return Stated(
            family=family,
            process=config.process(),
            sizes=sizes,
            mask_id=config.integer("process.mask_id") or last,
            options=config.numbers(**{name: f"network.{name}" for name in options}),
            time_conditioning=config.flag("network.time_conditioning") or False,
            length=config.integer("length"),
        )

    def config(self, about: Description) -> dict[str, Any]:
        """See base class."""
        mask = {} if about.mask_id is None else {"mask_id": about.mask_id}
        card = NetworkCard(
            network={"kind": about.kind, **about.sizes},
            process={**about.process, **mask},
            length=about.length or 0,
        )
        return card.fields()

    def write(self, path: Path, content: Content, *, max_shard_size: str) -> None:
        """See base class; holds one shard in memory."""
        empty = dict(content.empty())
        weights = Stream({name: empty[name] for name in content.shapes()}, content.tensor)
        fields = self.config(content.about)
        write_network(path, fields, weights, origin=content.origin, max_shard_size=max_shard_size)
