"""What a layout of models on disk provides: detection, reading and writing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.description import RawCheckpoint
from idlm_ds.registry.layouts import LAYOUTS, LayoutRow
from idlm_ds.registry.table import load


class Format(ABC):
    """Reads and writes models of one layout. No code in a file is executed."""

    has_shards: ClassVar[bool] = False
    """Whether weights are split over files of a largest size."""

    def __init__(self, layout: LayoutRow) -> None:
        self.layout = layout

    @abstractmethod
    def fits(self, fields: Mapping[str, Any]) -> bool:
        """Whether ``config.json``, or the file of a training program, is of this layout."""

    @abstractmethod
    def read(self, path: Path, opened: Any) -> RawCheckpoint:
        """Open the tensors of a model and read its configuration.

        ``opened`` is the content of its ``config.json``, or its ``TorchFile``.

        Raises:
            UnsafeCheckpointError: Reading it the usual way could run code.
            UserError: A part is missing, damaged or of another form.
        """

    @abstractmethod
    def write(self, path: Path, content: Content, *, max_shard_size: str) -> None:
        """Write a model that the layout can hold; ``path`` must not exist yet.

        ``max_shard_size`` is like ``5GB``, where there are shards.

        Raises:
            UserError: The shard size is no size, or the file cannot be written.
        """


def format_of(layout: str) -> Format:
    """Return the format of a layout."""
    row = LAYOUTS[layout]
    layout_format: Format = load(row.entry_point)(row)
    return layout_format


def find_format(fields: Mapping[str, Any], *, is_file: bool) -> Format | None:
    """Return the first format that fits, of files or of folders."""
    formats = (format_of(row.name) for row in LAYOUTS.values() if row.is_file == is_file)
    return next((candidate for candidate in formats if candidate.fits(fields)), None)


def write_model(path: Path, layout: str, content: Content, *, max_shard_size: str = "5GB") -> None:
    """Write a model in a layout; see ``Format.write``."""
    format_of(layout).write(path, content, max_shard_size=max_shard_size)
