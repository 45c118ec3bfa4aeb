"""Models rewritten in another layout, with a check that nothing changed on the way."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from idlm_ds.checkpoints.formats.base import format_of, write_model
from idlm_ds.checkpoints.formats.content import Content, whole
from idlm_ds.checkpoints.formats.description import Description, PublicModel
from idlm_ds.checkpoints.formats.public import PICKLED, detect, read_public
from idlm_ds.checkpoints.formats.reader import default_mask
from idlm_ds.checkpoints.staging import staged
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.errors import UserError
from idlm_ds.registry.families import is_masked, sees_time
from idlm_ds.registry.layouts import LAYOUTS, LayoutRow
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.registry.table import load
from idlm_ds.tensor_types import LatentInput, NetworkInput

SENTENCES, POSITIONS = 2, 16
NOISE = (0.1, 3.0)
"""Total noise of the two sentences that both networks are shown."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionOptions:
    """What to convert to."""

    layout: str
    """A name of ``registry.layouts``."""

    family: str | None = None
    length: int | None = None
    sees_time: bool | None = None
    """These three count where the source states nothing; they may not contradict it."""

    dtype: torch.dtype | None = None
    """None keeps what is stored."""

    is_raw: bool = False
    """Convert the weights alone, where the source also has a running mean."""

    max_shard_size: str | None = None
    """Like ``5GB``, which it is by default; of Hugging Face folders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What was converted, and how it was checked."""

    source: Description
    written: Description
    sets: tuple[str, ...]
    """Sets of tensors that were compared, each tensor bit for bit."""

    tokens: int
    """Number of tokens for which logits of both were compared."""

    difference: float
    """Largest difference between logits of both."""

    largest: float
    """Largest logit of the source."""

    lost: tuple[str, ...]
    """What the layout cannot hold."""

    copied: tuple[str, ...]
    """Files of the tokenizer."""


def convert(
    source: Path, target: Path, options: ConversionOptions, *, fresh: bool = False
) -> Outcome:
    """Write a model in another layout; afterwards ``target`` is whole and checked, or not there.

    Args:
        source: Anything that ``read_public`` reads.
        target: A folder, or a file for the layouts of training programs.
        options: The layout, and what the source does not state.
        fresh: Replace the model that ``target`` may be.

    Raises:
        UnsafeCheckpointError: Reading the source the usual way could run code.
        UserError: The source is damaged or does not fit the layout, the target is in the way or
            cannot be written, or what was written is not what was read.
    """
    layout = LAYOUTS[options.layout]
    _check_target(source, target, layout, fresh=fresh)
    if options.max_shard_size and not format_of(layout.name).has_shards:
        raise UserError(f"--max-shard-size: a {layout.description} is never cut into shards")
    model = read_public(source, prefer_ema=not options.is_raw)
    about = complete(model.about, options)
    check_fits(about, layout)
    has_both = about.is_ema and layout.is_file
    content = Content(
        about=about,
        weights=read_public(source, prefer_ema=False).weights if has_both else model.weights,
        mean=model.weights if has_both else None,
        dtype=options.dtype,
        origin={"model": str(source), "layout": about.layout},
    )
    with staged(target) as place:
        write_model(place, layout.name, content, max_shard_size=options.max_shard_size or "5GB")
        copied = () if place.is_file() else _copy_tokenizer(source, place)
        try:
            written = read_public(place)
            sets = _check_tensors(content, layout, place)
            largest, difference = _compare_logits(about, model.weights, written)
            if difference != 0 and about.dtype == written.about.dtype:
                raise UserError(f"its logits differ by {difference:g} from those of {source}")
        except UserError as error:
            raise UserError(f"{target}: not what {source} holds, so removed: {error}") from error
    return Outcome(
        source=about,
        written=written.about,
        sets=sets,
        tokens=SENTENCES * POSITIONS,
        difference=difference,
        largest=largest,
        lost=tuple(_lost(about, written.about)),
        copied=copied,
    )


def _check_target(source: Path, target: Path, layout: LayoutRow, *, fresh: bool) -> None:
    if layout.is_file and target.suffix not in PICKLED:
        endings = ", ".join(PICKLED)
        raise UserError(f"{target}: a {layout.description} is a file that ends in {endings}")
    if not target.exists():
        return
    if not fresh:
        raise UserError(f"{target}: already there; --fresh replaces it")
    if target.resolve() in [source.resolve(), *source.resolve().parents]:
        raise UserError(f"{target}: holds the source, so it is not replaced")
    try:
        detect(target)
    except UserError as error:
        raise UserError(f"{target}: no model, so --fresh does not replace it: {error}") from error


def check_fits(about: Description, layout: LayoutRow) -> None:
    """Check that a layout can hold a model.

    Raises:
        UserError: It is another kind of network, or something that the layout needs is unknown.
    """
    flag, described = f"--to {layout.name}", f"a {layout.description}"
    if layout.networks and about.kind not in layout.networks:
        raise UserError(f"{flag}: {described} does not hold a network of kind {about.kind}")
    for fact in layout.needs:
        if getattr(about, fact) is None:
            raise UserError(f"{flag}: nothing tells the {fact}; give --{fact}")
    if layout.families and about.family not in layout.families:
        held = " or ".join(layout.families)
        raise UserError(f"{flag}: {described} holds networks of {held}, not of {about.family}")
    if about.latent and not layout.has_latent:
        raise UserError(
            f"{flag}: programs that read {described} know nothing of this student's latent; "
            "tools/export_student.py writes it with code that does"
        )
    if layout.has_mask_last and about.mask_id != about.vocab_size - 1:
        raise UserError(f"{flag}: the mask must be the last id, not {about.mask_id}")
    if not (layout.states_time or about.sizes["time_conditioning"]):
        raise UserError(f"{flag}: it has no room to say that the network is not shown the time")


def complete(about: Description, options: ConversionOptions) -> Description:
    """Add what the options state, and what follows from it.

    Whether a network is conditioned on the noise level follows from its family where nothing else
    states it.

    Raises:
        UserError: The options contradict the model, or nothing states what the network is shown.
    """
    family = _agreed("--family", options.family, about.family)
    mask_id, sizes = about.mask_id, dict(about.sizes)
    if mask_id is None and is_masked(family):
        mask_id = default_mask(about.vocab_size)
    if NETWORKS[about.kind].has_time_conditioning:
        stated = sizes.get("time_conditioning")
        conditioned = _agreed("--time-conditioning", options.sees_time, stated)
        conditioned = sees_time(family) if conditioned is None else conditioned
        if conditioned is None:
            raise UserError(
                "nothing tells whether the network is shown the noise level; give --family or "
                "--time-conditioning"
            )
        sizes["time_conditioning"] = conditioned
    return replace(
        about,
        family=family,
        process={**about.process, **({"name": family} if family else {})},
        sizes=sizes,
        mask_id=mask_id,
        length=_agreed("--length", options.length, about.length),
    )


def _agreed(flag: str, given: T | None, stated: T | None) -> T | None:
    if given is not None and stated is not None and given != stated:
        raise UserError(f"{flag}: {given}, but the source says {stated}")
    return stated if given is None else given


def _copy_tokenizer(source: Path, place: Path) -> tuple[str, ...]:
    folder = source if source.is_dir() else source.parent
    names = tuple(name for name in TOKENIZER_FILES if (folder / name).is_file())
    for name in names:
        shutil.copyfile(folder / name, place / name)
    return names


def _check_tensors(content: Content, layout: LayoutRow, place: Path) -> tuple[str, ...]:
    expected = {"weights": content.weights}
    if layout.is_file:
        expected["running mean"] = content.mean or content.weights
    for label, source in expected.items():
        written = read_public(place, prefer_ema=label == "running mean").weights
        if written.names() != source.names():
            raise UserError(f"its {label} have other names")
        for name in content.shapes():
            if not _same_bits(whole(written, name), whole(source, name, content.dtype)):
                raise UserError(f"{name} of its {label} differs")
    return tuple(expected)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def _compare_logits(
    about: Description, weights: NamedTensors, written: PublicModel
) -> tuple[float, float]:
    """Largest logit and largest difference on a fixed input; one network at a time."""
    both = {about.dtype, written.about.dtype}
    dtype = torch.bfloat16 if both == {"bfloat16"} else torch.float32
    before = answers(about, weights, dtype)
    after = answers(written.about, written.weights, dtype)
    difference = 0.0 if _same_bits(before, after) else float((before - after).abs().max())
    return float(before.abs().max()), difference


@torch.no_grad()
def answers(about: Description, weights: NamedTensors, dtype: torch.dtype) -> Tensor:
    """Build the described network and return its logits on a small fixed input."""
    row = NETWORKS[about.kind]
    with torch.device("meta"):
        network: nn.Module = load(row.entry_point)(load(row.config)(**about.sizes))
    network = network.to(dtype).to_empty(device="cpu").eval()
    for name, parameter in network.named_parameters():
        parameter.copy_(whole(weights, name, dtype))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(about.vocab_size, (SENTENCES, POSITIONS), generator=generator)
    shown: NetworkInput = tokens
    if about.latent:
        z = torch.randn(*tokens.shape, about.latent, generator=generator)
        shown = LatentInput(tokens, z)
    everywhere = torch.arange(tokens.numel())
    return network(shown, torch.tensor(NOISE), lambda head: head.scores(everywhere))


def _lost(about: Description, written: Description) -> Iterator[str]:
    kept = _facts(written)
    for fact, value in _facts(about).items():
        other = kept.get(fact)
        if value is not None and value != other:
            yield f"{fact} {value}" + ("" if other is None else f" (reads as {other})")
    if about.is_ema and not written.is_ema:
        yield "weights other than the running mean"
    if about.ema is not None and not about.is_ema:
        yield "running mean"
    if LAYOUTS[about.layout].is_file:
        yield "state of the training"


def _facts(about: Description) -> dict[str, Any]:
    config = load(NETWORKS[about.kind].config)
    process = {k: v for k, v in about.process.items() if k not in ("name", "mask_id")}
    return {
        "family": about.family,
        **process,
        "mask": about.mask_id,
        "length": about.length,
        **asdict(config(**about.sizes)),
    }
