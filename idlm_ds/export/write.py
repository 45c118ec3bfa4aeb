"""A student written as a Hugging Face folder."""

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from idlm_ds.checkpoints.conversion import TOKENIZER_FILES
from idlm_ds.checkpoints.formats.base import write_model
from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.json_files import read_json
from idlm_ds.checkpoints.model_folder import CONFIG
from idlm_ds.checkpoints.staging import staged
from idlm_ds.checkpoints.weight_files import INDEX
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.export.card import Page
from idlm_ds.export.closure import WRAPPERS, collect
from idlm_ds.export.fields import codes
from idlm_ds.export.student import Student, find_student
from idlm_ds.processes.base import Process
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.truncation import Truncation

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

TOKENIZER = "tokenizer_config.json"
LOCAL = ("backend", "is_local", "local_files_only")
"""Fields of that file that say how a tokenizer was loaded here."""

WRITTEN = (CONFIG, "generation_config.json", "README.md", INDEX, *TOKENIZER_FILES)
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
"""Names of what an export writes beside code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """What to export, where to, and what its page says."""

    model: str
    output: Path
    chain: Mapping[str, Any]
    """Arguments of the ``SamplerConfig`` that ``generate`` uses by default."""

    fresh: bool = False
    card: str | None = None
    """A model that describes a checkpoint's network, where its run does not."""

    dtype: str = "float32"
    max_shard_size: str = "5GB"
    license: str | None = None
    base_model: str | None = None
    """Repository of the teacher on the hub."""


def export(options: ExportOptions) -> Student:
    """Write the folder, whole or not at all.

    Raises:
        UserError: The student, an option or the place to write to cannot be used.
    """
    student = find_student(options.model, options.card)
    about, chain = student.about, _checked(options.chain, student.process)
    sources = {kind: collect(WRAPPERS + code.module) for kind, code in codes().items()}
    code, output = codes()[about.kind], Path(os.path.abspath(options.output))
    _check_free(output, {name for files in sources.values() for name in files}, fresh=options.fresh)
    content = Content(about=about, weights=student.weights, dtype=DTYPES[options.dtype])
    page = Page(
        title=output.name,
        code=code,
        student=student,
        dtype=options.dtype,
        chain=chain,
        license=options.license,
        base_model=options.base_model,
    )
    with staged(output) as folder:
        layout = NETWORKS[about.kind].exported_as
        write_model(folder, layout, content, max_shard_size=options.max_shard_size)
        fields = read_json(folder / CONFIG) | code.fields(student.tokenizer.eos_id)
        _write_json(folder / CONFIG, fields)
        # The latent is the network's: ``config.json`` says its size.
        generation = {k: v for k, v in asdict(chain).items() if k != "latent"}
        _write_json(folder / "generation_config.json", {"do_sample": True, **generation})
        _write_tokenizer(folder, student.tokenizer)
        for name, text in sources[about.kind].items():
            (folder / name).write_text(text, "utf-8")
        (folder / "README.md").write_text(page.text(), "utf-8")
    return student


def _checked(settings: Mapping[str, Any], process: Process) -> SamplerConfig:
    try:
        chain = SamplerConfig(**settings)
        chain.reverse_step(process)
        uniform_grid(chain.steps)
        Truncation(process, chain.temperature, chain.nucleus)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    return chain


def _check_free(output: Path, code: Collection[str], *, fresh: bool) -> None:
    """Check that a folder can be written; ``code`` names all code files an export may have."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UserError(f"--output: {output} is no folder")
    present = sorted(path.name for path in output.iterdir()) if output.exists() else []
    if not present:
        return
    if not fresh:
        raise UserError(f"--output: {output} is not empty; --fresh replaces an earlier export")
    if CONFIG not in present or not {"auto_map", "process"} <= read_json(output / CONFIG).keys():
        raise UserError(f"--fresh: {output} is something else than an export")
    known = {*code, *WRITTEN}
    unknown = [name for name in present if name not in known and not WEIGHTS.fullmatch(name)]
    if unknown:
        raise UserError(f"--fresh: {output / unknown[0]} is nothing that an export writes; move it")


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Save it under the class name that transformers 4 and 5 know."""
    tokenizer.save(folder)
    if not (folder / TOKENIZER).is_file():
        return
    saved = read_json(folder / TOKENIZER)
    fields = {key: value for key, value in saved.items() if key not in LOCAL}
    if fields.get("tokenizer_class") == "TokenizersBackend":
        fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write_json(folder / TOKENIZER, fields)


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
