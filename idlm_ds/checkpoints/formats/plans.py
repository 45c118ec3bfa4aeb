"""Names and shapes of the parameters of published networks, and how tensors are checked."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.registry.table import load

Shapes = dict[str, tuple[int, ...]]
"""By name, in the order of ``named_parameters``. A negative size is not known."""

TIME_WAVES = 256
SHOWN = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Names and shapes of the parameters of an architecture."""

    blocks: str
    """Prefix of a block's names, in front of its number."""

    shapes: Callable[[Mapping[str, int]], Shapes]
    """All parameters of a network of some sizes, but for the projection of a latent."""

    anchors: Mapping[str, tuple[tuple[str, int], ...]]
    """For each size, tensors and axes that it can be inferred from."""

    embedding: str = ""
    """Table of the embeddings of tokens."""

    latent: str = ""
    """Projection of a latent, which students may have, a row for each feature; empty where the
    architecture takes none. ``embedding`` must be named beside it."""

    optional: frozenset[str] = frozenset()
    """Buffers that some files have."""


def _dit_shapes(sizes: Mapping[str, int]) -> Shapes:
    n, d, c, inner = (sizes[k] for k in ("vocab_size", "hidden", "cond", "inner"))
    shapes: Shapes = {
        "vocab_embed.embedding": (n, d),
        "sigma_map.mlp.0.weight": (c, TIME_WAVES),
        "sigma_map.mlp.0.bias": (c,),
        "sigma_map.mlp.2.weight": (c, c),
        "sigma_map.mlp.2.bias": (c,),
    }
    for i in range(sizes["blocks"]):
        block: Shapes = {
            "norm1.weight": (d,),
            "attn_qkv.weight": (3 * d, d),
            "attn_out.weight": (d, d),
            "norm2.weight": (d,),
            "mlp.0.weight": (inner, d),
            "mlp.0.bias": (inner,),
            "mlp.2.weight": (d, inner),
            "mlp.2.bias": (d,),
            "adaLN_modulation.weight": (6 * d, c),
            "adaLN_modulation.bias": (6 * d,),
        }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes | {
        "output_layer.norm_final.weight": (d,),
        "output_layer.linear.weight": (n, d),
        "output_layer.linear.bias": (n,),
        "output_layer.adaLN_modulation.weight": (2 * d, c),
        "output_layer.adaLN_modulation.bias": (2 * d,),
    }


def _llada_shapes(sizes: Mapping[str, int]) -> Shapes:
    n, d, inner = (sizes[k] for k in ("vocab_size", "hidden", "ffn"))
    block: Shapes = {
        "attn_norm.weight": (d,),
        "q_proj.weight": (d, d),
        "k_proj.weight": (d, d),
        "v_proj.weight": (d, d),
        "attn_out.weight": (d, d),
        "ff_norm.weight": (d,),
        "ff_proj.weight": (inner, d),
        "up_proj.weight": (inner, d),
        "ff_out.weight": (d, inner),
    }
    root = "model.transformer"
    shapes: Shapes = {f"{root}.wte.weight": (n, d)}
    for i in range(sizes["blocks"]):
        shapes |= {f"{root}.blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes | {f"{root}.ln_f.weight": (d,), f"{root}.ff_out.weight": (n, d)}


ROTARY = "rotary_emb.inv_freq"
"""A buffer of half a head's width; the networks here compute it."""

DIT = Plan(
    blocks="blocks.",
    shapes=_dit_shapes,
    anchors={
        "vocab_size": (("vocab_embed.embedding", 0), ("output_layer.linear.bias", 0)),
        "hidden": (("vocab_embed.embedding", 1), ("output_layer.norm_final.weight", 0)),
        "cond": (("sigma_map.mlp.2.bias", 0), ("blocks.0.adaLN_modulation.weight", 1)),
        "inner": (("blocks.0.mlp.0.bias", 0), ("blocks.0.mlp.2.weight", 1)),
    },
    embedding="vocab_embed.embedding",
    latent="latent_map.weight",
    optional=frozenset({ROTARY}),
)

LLADA = Plan(
    blocks="model.transformer.blocks.",
    shapes=_llada_shapes,
    anchors={
        "vocab_size": (("model.transformer.wte.weight", 0),),
        "hidden": (("model.transformer.wte.weight", 1),),
        "ffn": (("model.transformer.blocks.0.ff_proj.weight", 0),),
    },
    embedding="model.transformer.wte.weight",
    latent="model.transformer.latent_map.weight",
)


def plan_of(network: str) -> Plan:
    """Return the plan of a kind of network."""
    plan: Plan = load(NETWORKS[network].plan)
    return plan


def planned() -> list[str]:
    """Kinds of networks that have a plan, which can be on disk in layouts of any kind."""
    return [row.name for row in NETWORKS.values() if row.plan]


def parameter_shapes(network: str, arguments: Mapping[str, Any]) -> Shapes:
    """All parameters of a network whose configuration class has these arguments."""
    inner = arguments.get("mlp_ratio", 0) * arguments["hidden"]
    return expected_shapes(plan_of(network), {**arguments, "inner": inner})


def expected_shapes(plan: Plan, sizes: Mapping[str, int]) -> Shapes:
    """All parameters of a network of some sizes, the projection of a latent last."""
    latent = {plan.latent: (sizes["hidden"], sizes["latent"])} if sizes.get("latent") else {}
    return {**plan.shapes(sizes), **latent}


def own_name(stored: str) -> str:
    """Strip from a name the prefixes of training programs and compilers."""
    name = stored.replace("_orig_mod.", "")
    while name.startswith("backbone."):
        name = name.removeprefix("backbone.")
    return name


def infer_sizes(plan: Plan, tensors: NamedTensors, stated: Mapping[str, int]) -> dict[str, int]:
    """Sizes as stated, else as inferred from shapes, else -1."""
    number = re.compile(re.escape(plan.blocks) + r"([0-9]{1,6})\.")
    matches = (number.match(name) for name in tensors.names())
    sizes: dict[str, int] = {}
    for size, places in plan.anchors.items():
        shapes = ((tensors.shape(name) or (), axis) for name, axis in places)
        inferred = (shape[axis] for shape, axis in shapes if len(shape) > axis and shape[axis] > 0)
        sizes[size] = next(inferred, -1)
    sizes["blocks"] = len({m[1] for m in matches if m})
    sizes |= {k: v for k, v in stated.items() if k in sizes}
    projection = tensors.shape(plan.latent) or (0,)
    if latent := stated.get("latent", projection[-1]):
        sizes["latent"] = latent
    return sizes


def problems(plan: Plan, expected: Shapes, tensors: NamedTensors) -> list[str]:
    """List all that keeps tensors from filling a network."""
    present = tensors.names()
    lines = []
    if missing := [name for name in expected if name not in present]:
        lines.append(f"missing {listed(missing)}")
    if unexpected := sorted(present - expected.keys() - plan.optional):
        lines.append(f"unexpected {listed(unexpected)}")
    wrong: dict[str, list[str]] = {}
    for name in expected.keys() & present:
        if trouble := _trouble(tensors, name, expected[name]):
            wrong.setdefault(trouble, []).append(name)
    lines += sorted(f"{listed(sorted(names))}: {trouble}" for trouble, names in wrong.items())
    return lines


def _trouble(tensors: NamedTensors, name: str, wanted: tuple[int, ...]) -> str | None:
    shape, dtype = tensors.shape(name) or (), tensors.dtype(name)
    fits = len(shape) == len(wanted) and all(
        want < 0 or want == size for size, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        return f"shape {list(shape)} instead of {['?' if n < 0 else n for n in wanted]}"
    if dtype is None or not dtype.is_floating_point:
        return "not floating-point"
    return None


def listed(names: Iterable[str]) -> str:
    """Names for one line of text; those of several blocks are joined."""
    blocks: dict[str, list[int]] = {}
    for name in names:
        number = re.search(r"(?<=blocks\.)[0-9]{1,6}(?=\.)", name)
        pattern = name if number is None else name[: number.start()] + "{}" + name[number.end() :]
        blocks.setdefault(pattern, []).extend([] if number is None else [int(number[0])])
    joined = [_join(pattern, sorted(numbers)) for pattern, numbers in blocks.items()]
    more = [f"and {len(joined) - SHOWN} more"] if len(joined) > SHOWN else []
    return ", ".join(joined[:SHOWN] + more)


def _join(pattern: str, numbers: list[int]) -> str:
    name = ascii(pattern[:120])[1:-1]
    if not numbers:
        return name
    first, last = numbers[0], numbers[-1]
    is_run = numbers == list(range(first, last + 1))
    span = f"{first}-{last}" if is_run and last > first else ",".join(map(str, numbers))
    return name.replace("{}", span, 1)
