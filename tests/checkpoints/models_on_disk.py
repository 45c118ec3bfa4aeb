"""One tiny model in every layout: where it is, and the weights that should come out of it."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

import idlm_ds
from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.checkpoints.tensors import NamedTensors
from tests.checkpoints import published
from tests.checkpoints.published import (
    DIT_SIZES,
    INV_FREQ,
    LENGTH,
    LightningFile,
    N,
    Weights,
    dit_table,
    draw,
    hugging_face_config,
    llada_table,
    running_mean,
    training_config,
    with_prefix,
    write_folder,
    write_shards,
)

TOKENIZER = Path(idlm_ds.__file__).parent / "assets" / "tokenizer"

Written = tuple[Path, Weights]


def assert_same_bits(source: NamedTensors, weights: Weights) -> None:
    """Read whole tensors, their halves, single elements, and runs across the ends of rows."""
    assert source.names() == weights.keys()
    for name, tensor in weights.items():
        shape, flat = tuple(tensor.shape), tensor.flatten()
        end = len(flat)
        assert source.shape(name) == shape
        cuts = {(0, end), (0, end // 2), (end // 2, end), (end - 1, end), (1, 2), (end, end)}
        cuts |= {(5, min(end, 5 + 31)), (end // 3, end // 3 + 1), (end // 7, 6 * end // 7)}
        for start, stop in cuts:
            got = source.read(name, shape, start, stop)
            assert got.dtype == tensor.dtype
            assert torch.equal(got, flat[start:stop]), (name, start, stop)


def write_own(root: Path) -> Written:
    card = NetworkCard(
        network={"kind": "dit", **DIT_SIZES, "dropout": 0.0, "time_conditioning": True},
        process={"name": "sedd", "schedule": "loglinear", "eps": 1e-3},
        length=LENGTH,
    )
    weights = draw(dit_table(), 1)
    write_network(root, card, weights)
    return root, weights


def write_own_with_latent(root: Path) -> Path:
    """A student that all layouts could hold but for its latent."""
    latent = {"latent": 5, "latent_rate": 2.0}
    card = NetworkCard(
        network={"kind": "dit", **DIT_SIZES, "dropout": 0.0, "time_conditioning": True, **latent},
        process={"name": "sedd", "schedule": "loglinear", "eps": 1e-3},
        length=LENGTH,
    )
    weights = draw(dit_table() | {"latent_map.weight": (published.D, 5)}, 1)
    write_network(root, card, weights)
    return root


def write_own_llada(root: Path) -> Written:
    sizes = {"vocab_size": N, "hidden": published.D, "blocks": 2, "heads": 3, "ffn": 40}
    card = NetworkCard(
        network={"kind": "llada", **sizes, "rope_base": 1e4, "norm_eps": 1e-5},
        process={"name": "mdlm"},
        length=LENGTH,
    )
    weights = draw(llada_table(), 1)
    write_network(root, card, weights)
    return root, weights


def write_mdlm(root: Path) -> Written:
    weights = draw(dit_table(), 1)
    return (
        write_folder(root, hugging_face_config(), with_prefix("backbone.", weights | INV_FREQ)),
        weights,
    )


def write_mdlm_in_bfloat16(root: Path) -> Written:
    weights = draw(dit_table(), 1, torch.bfloat16)
    return write_folder(root, hugging_face_config(), with_prefix("backbone.", weights)), weights


def write_duo_twice_wrapped(root: Path) -> Written:
    weights = draw(dit_table(), 1)
    config = hugging_face_config(
        model_type="DUO", architectures=["DUO"], auto_map=None, time_conditioning=True
    )
    named = {f"backbone._orig_mod.backbone.{n}": w for n, w in weights.items()}
    return write_folder(root, config, named), weights


def write_mdlm_in_shards(root: Path) -> Written:
    weights = draw(dit_table(), 1)
    return write_shards(root, hugging_face_config(), with_prefix("backbone.", weights)), weights


def write_mdlm_pickled(root: Path) -> Written:
    weights = draw(dit_table(), 1)
    root.mkdir()
    (root / "config.json").write_text(json.dumps(hugging_face_config()))
    torch.save(with_prefix("backbone.", weights | INV_FREQ), root / "pytorch_model.bin")
    return root, weights


def write_sedd(root: Path) -> Written:
    weights = draw(dit_table(), 1)
    config = training_config(
        tokens=N - 1, graph={"type": "absorb", "file": "data"}, noise={"type": "loglinear"}
    )
    return write_folder(root, config, weights | INV_FREQ), weights


def write_sdtt(root: Path) -> Written:
    weights = draw(dit_table(), 1)
    config = training_config(parameterization={"name": "sdtt"}, time_conditioning=False)
    return write_folder(root, {"config": config}, with_prefix("backbone.", weights)), weights


def write_sdtt_from_hugging_face(root: Path) -> Written:
    weights = draw(dit_table(), 1)
    teacher = {"teacher.x": torch.zeros(2)}
    named = with_prefix("backbone.backbone.", weights) | teacher
    return write_folder(root, training_config(), named), weights


def write_lightning(root: Path) -> Written:
    config = training_config(algo={"name": "duo", "time_conditioning": True})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(TOKENIZER)
    file = LightningFile(config=config, tokenizer=tokenizer)
    assert file.mean is not None
    return file.write(root.with_suffix(".ckpt")), file.mean


def write_lightning_without_configuration(root: Path) -> Written:
    file = LightningFile(mean=None, prefix="backbone._orig_mod.")
    return file.write(root.with_suffix(".ckpt")), file.raw


def write_sedd_training(root: Path) -> Written:
    raw, mean = draw(dit_table(), 1), draw(dit_table(), 2)
    content = {
        "optimizer": {"state": {}, "param_groups": []},
        "model": raw | INV_FREQ,
        "ema": running_mean(mean),
        "step": 9,
    }
    path = root.with_suffix(".pth")
    torch.save(content, path)
    return path, mean


LLADA_CONFIG = {
    "model_type": "llada", "architectures": ["LLaDAModelLM"], "d_model": published.D,
    "n_layers": 2, "n_heads": 3, "n_kv_heads": 3, "mlp_hidden_size": 40, "mlp_ratio": 4,
    "embedding_size": N, "vocab_size": N, "mask_token_id": 9, "eos_token_id": 8,
    "max_sequence_length": 64, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "alibi": False,
    "weight_tying": False, "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
}  # fmt: skip


def write_llada(root: Path) -> Written:
    weights = draw(llada_table(), 1, torch.bfloat16)
    return write_shards(root, LLADA_CONFIG, weights), weights
