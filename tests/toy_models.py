"""Model folders small enough for tests of whole programs."""

from pathlib import Path

import torch

from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.models import causal, dit
from idlm_ds.models.init import InitialWeights


def random_teacher(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    dropout: float = 0.0,
    family: str = "mdlm",
    scale: float = 0.2,
    latent: int = 0,
) -> None:
    """A diffusion network that nobody has trained; at scale 0 every answer is uniform."""
    sizes = {"hidden": 16, "blocks": 1, "heads": 2, "cond": 8, "dropout": dropout}
    sizes |= {"time_conditioning": family != "mdlm"}
    sizes |= {"vocab_size": len(tokenizer) + 1}
    if latent:
        sizes |= {"latent": latent, "latent_rate": 2.0}
    source = InitialWeights(lambda name, shape, g: scale * torch.randn(shape, generator=g), seed=5)
    module = dit.DiT(dit.DiTConfig(**sizes))
    weights = {
        n: source.read(n, tuple(p.shape), 0, p.numel()).view(p.shape)
        for n, p in module.named_parameters()
    }
    card = NetworkCard(
        network={"kind": "dit", **sizes},
        process={"name": family, "schedule": "loglinear", "eps": 1e-3},
        length=16,
    )
    write_network(folder, card, weights)
    tokenizer.save(folder)


def random_judge(folder: Path, tokenizer: Tokenizer) -> None:
    """A language model that nobody has trained."""
    config = causal.GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=8, n_layer=1, n_head=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        causal.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(folder)
