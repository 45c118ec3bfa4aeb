"""From one layout to another, and proof that nothing changed on the way."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from idlm_ds.checkpoints.formats.configs import FOLDERS, check_fits
from idlm_ds.checkpoints.formats.description import LAYOUTS, Description, PublicModel
from idlm_ds.checkpoints.formats.public import PICKLED, detect, read_public
from idlm_ds.checkpoints.formats.stated import MASKED, TOLD_TIME, default_mask
from idlm_ds.checkpoints.formats.writers import WITH_MEAN, Content, whole, write_model
from idlm_ds.checkpoints.staging import staged
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.errors import UserError
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.llada import LLaDA, LLaDAConfig

NETWORKS: Mapping[str, tuple[Any, Any]] = {"dit": (DiTConfig, DiT), "llada": (LLaDAConfig, LLaDA)}

SENTENCES, POSITIONS = 2, 16
NOISE = (0.1, 3.0)
"""Total noise of the two sentences that both networks are shown."""

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model",
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is asked for."""

    layout: str
    """A key of ``LAYOUTS``."""

    family: str | None = None
    length: int | None = None
    is_told_time: bool | None = None
    """These three count where the source tells nothing; they may not contradict it."""

    dtype: torch.dtype | None = None
    """None keeps what is stored."""

    is_raw: bool = False
    """Carry the weights alone, where the source also has a running mean."""

    max_shard_size: str | None = None
    """Like ``5GB``, which it is by default; of Hugging Face folders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What was converted, and how it was checked."""

    source: Description
    written: Description
    sets: tuple[str, ...]
    """Of what the tensors were compared, one by one, bit for bit."""

    tokens: int
    """For which logits of both were compared."""

    difference: float
    """Largest, between logits of both."""

    largest: float
    """Logit of the source."""

    lost: tuple[str, ...]
    """What the layout cannot hold."""

    copied: tuple[str, ...]
    """Files of the tokenizer."""


def convert(source: Path, target: Path, wish: Wish, *, fresh: bool = False) -> Outcome:
    """Write a model in another layout; afterwards ``target`` is whole and checked, or not there.

    Args:
        source: Anything that ``read_public`` reads.
        target: A folder, or a file for the layouts of training programs.
        wish: The layout, and what the source does not tell.
        fresh: Replace the model that ``target`` may be.

    Raises:
        UnsafeCheckpointError: Reading the source the usual way could run code.
        UserError: The source is damaged or does not fit the layout, the target is in the way or
            cannot be written, or what was written is not what was read.
    """
    check_target(source, target, wish.layout, fresh=fresh)
    if wish.max_shard_size and wish.layout not in FOLDERS:
        raise UserError(f"--max-shard-size: a {LAYOUTS[wish.layout]} is never cut into shards")
    model = read_public(source, prefer_ema=not wish.is_raw)
    about = complete(model.about, wish)
    check_fits(about, wish.layout)
    has_both = about.is_ema and wish.layout in WITH_MEAN
    content = Content(
        about=about,
        weights=read_public(source, prefer_ema=False).weights if has_both else model.weights,
        mean=model.weights if has_both else None,
        dtype=wish.dtype,
        origin={"model": str(source), "layout": about.layout},
    )
    with staged(target) as place:
        write_model(place, wish.layout, content, max_shard_size=wish.max_shard_size or "5GB")
        copied = () if place.is_file() else _copy_tokenizer(source, place)
        try:
            written = read_public(place)
            sets = _check_tensors(content, wish.layout, place)
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


def check_target(source: Path, target: Path, layout: str, *, fresh: bool) -> None:
    """See that a model can be written to a path.

    Raises:
        UserError: Something is there that may not be replaced, or the path does not fit the layout.
    """
    if layout in WITH_MEAN and target.suffix not in PICKLED:
        endings = ", ".join(PICKLED)
        raise UserError(f"{target}: a {LAYOUTS[layout]} is a file that ends in {endings}")
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


def complete(about: Description, wish: Wish) -> Description:
    """Add what the wish tells, and what follows from it.

    Whether a network is shown the noise level follows from its family where nothing else tells it:
    those of mdlm are not.

    Raises:
        UserError: The wish contradicts the model, or nothing tells what the network is shown.
    """
    family = _agreed("--family", wish.family, about.family)
    mask_id, sizes = about.mask_id, dict(about.sizes)
    if mask_id is None and family in MASKED:
        mask_id = default_mask(about.vocab_size)
    if about.kind == "dit":
        told = _agreed("--time-conditioning", wish.is_told_time, sizes.get("time_conditioning"))
        told = TOLD_TIME.get(family or "") if told is None else told
        if told is None:
            raise UserError(
                "nothing tells whether the network is shown the noise level; give --family or "
                "--time-conditioning"
            )
        sizes["time_conditioning"] = told
    return replace(
        about,
        family=family,
        process={**about.process, **({"name": family} if family else {})},
        sizes=sizes,
        mask_id=mask_id,
        length=_agreed("--length", wish.length, about.length),
    )


def _agreed(flag: str, asked: T | None, told: T | None) -> T | None:
    if asked is not None and told is not None and asked != told:
        raise UserError(f"{flag}: {asked}, but the source says {told}")
    return told if asked is None else asked


def _copy_tokenizer(source: Path, place: Path) -> tuple[str, ...]:
    folder = source if source.is_dir() else source.parent
    found = tuple(name for name in TOKENIZER_FILES if (folder / name).is_file())
    for name in found:
        shutil.copyfile(folder / name, place / name)
    return found


def _check_tensors(content: Content, layout: str, place: Path) -> tuple[str, ...]:
    expected = {"weights": content.weights}
    if layout in WITH_MEAN:
        expected["running mean"] = content.mean or content.weights
    for label, source in expected.items():
        written = read_public(place, prefer_ema=label == "running mean").weights
        if written.names() != source.names():
            raise UserError(f"its {label} have other names")
        for name in content.shapes():
            if not _same_bits(whole(written, name), whole(source, name, content.dtype)):
                raise UserError(f"{name} of its {label} differs")
    return tuple(expected)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def _compare_logits(
    about: Description, weights: NamedTensors, written: PublicModel
) -> tuple[float, float]:
    """Largest logit and largest difference on a fixed input; one network at a time."""
    both = {about.dtype, written.about.dtype}
    dtype = torch.bfloat16 if both == {"bfloat16"} else torch.float32
    mine = answers(about, weights, dtype)
    other = answers(written.about, written.weights, dtype)
    difference = 0.0 if _same_bits(mine, other) else float((mine - other).abs().max())
    return float(mine.abs().max()), difference


@torch.no_grad()
def answers(about: Description, weights: NamedTensors, dtype: torch.dtype) -> Tensor:
    """Build the described network and return its logits on a small fixed input."""
    configure, build = NETWORKS[about.kind]
    with torch.device("meta"):
        network: nn.Module = build(configure(**about.sizes))
    network = network.to(dtype).to_empty(device="cpu").eval()
    for name, parameter in network.named_parameters():
        parameter.copy_(whole(weights, name, dtype))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(about.vocab_size, (SENTENCES, POSITIONS), generator=generator)
    everywhere = torch.arange(tokens.numel())
    return network(tokens, torch.tensor(NOISE), lambda head: head.scores(everywhere))


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
    if about.layout in WITH_MEAN:
        yield "state of the training"


def _facts(about: Description) -> dict[str, Any]:
    configure, _ = NETWORKS[about.kind]
    process = {k: v for k, v in about.process.items() if k not in ("name", "mask_id")}
    return {
        "family": about.family,
        **process,
        "mask": about.mask_id,
        "length": about.length,
        **asdict(configure(**about.sizes)),
    }
