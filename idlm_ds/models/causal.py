"""A GPT-2 from transformers behind the interface of the other networks.

It makes the judge of the quickstart. Shapes: B sequences, L positions, P selected positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from idlm_ds.models.head import Projection, VocabularyHead


class CausalLM(nn.Module):
    """An autoregressive network that projects to scores only at selected positions."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.lm = GPT2LMHeadModel(config)
        projection = Projection(config.n_embd, config.vocab_size, bias=False, device="meta")
        projection.weight = self.lm.lm_head.weight  # tied to the embedding
        self.lm.lm_head = projection

    def forward(
        self, x_BL: Tensor, sigma_B: Tensor, read: Callable[[VocabularyHead], Tensor]
    ) -> Tensor:
        """See ``DiT.forward``; there is no time."""
        del sigma_B
        hidden = self.lm.transformer(x_BL, use_cache=False).last_hidden_state.flatten(0, 1)
        return read(VocabularyHead(lambda positions: hidden[positions], self.lm.lm_head))


def initial_value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw the initial float32 value of one parameter of a ``CausalLM``."""
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return torch.empty(shape).normal_(std=0.02, generator=generator)
