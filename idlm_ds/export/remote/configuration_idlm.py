"""Configuration of an exported diffusion transformer."""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig


class IDLMConfig(PretrainedConfig):
    """Sizes under the names of the published MDLM and Duo models, and the diffusion family."""

    model_type = "idlm"
    attribute_map = {
        "hidden_size": "hidden_dim",
        "num_hidden_layers": "n_blocks",
        "num_attention_heads": "n_heads",
        "max_position_embeddings": "model_length",
    }

    def __init__(
        self,
        vocab_size: int = 50258,
        model_length: int = 1024,
        hidden_dim: int = 768,
        cond_dim: int = 128,
        n_blocks: int = 12,
        n_heads: int = 12,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        time_conditioning: bool = False,
        mask_token_id: int | None = None,
        process: Mapping[str, Any] | None = None,
        latent: int = 0,
        latent_rate: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Describe a model.

        Args:
            vocab_size: Token ids, the mask included where there is one.
            model_length: Positions of a training sequence.
            hidden_dim: Width.
            cond_dim: Width of the embedded noise level.
            n_blocks: Transformer blocks.
            n_heads: Attention heads of a block.
            mlp_ratio: Width of the feed-forward layer over ``hidden_dim``.
            dropout: Share of activations dropped in training.
            time_conditioning: Whether the network is shown the noise level.
            mask_token_id: None in families without a mask.
            process: Family (``name``), ``schedule`` and its parameters.
            latent: Random numbers that are shown beside every token; 0 for none.
            latent_rate: Factor of their projection.
            kwargs: What all configurations take.
        """
        self.vocab_size = vocab_size
        self.model_length = model_length
        self.hidden_dim = hidden_dim
        self.cond_dim = cond_dim
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.mlp_ratio = mlp_ratio
        self.dropout = dropout
        self.time_conditioning = time_conditioning
        self.mask_token_id = mask_token_id
        self.process = dict(process or {})
        self.latent = latent
        self.latent_rate = latent_rate
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
