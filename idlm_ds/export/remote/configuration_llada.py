"""Configuration of an exported network of LLaDA's architecture."""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig


class LLaDAConfig(PretrainedConfig):
    """Sizes under the names of LLaDA's release, and the diffusion family.

    The other fields of the release are constants of the architecture and kept as they are.
    """

    model_type = "llada"
    attribute_map = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "mlp_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }

    def __init__(
        self,
        vocab_size: int = 126_464,
        d_model: int = 4096,
        n_layers: int = 32,
        n_heads: int = 32,
        mlp_hidden_size: int = 12_288,
        rope_theta: float = 500_000.0,
        rms_norm_eps: float = 1e-5,
        max_sequence_length: int = 4096,
        mask_token_id: int | None = 126_336,
        process: Mapping[str, Any] | None = None,
        latent: int = 0,
        latent_rate: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Describe a model.

        Args:
            vocab_size: Token ids, the mask included.
            d_model: Width.
            n_layers: Transformer blocks.
            n_heads: Attention heads of a block.
            mlp_hidden_size: Width of the feed-forward layer.
            rope_theta: Base of the rotary embedding.
            rms_norm_eps: Added under the root of the norms.
            max_sequence_length: Positions of a training sequence.
            mask_token_id: The mask.
            process: Family (``name``), ``schedule`` and its parameters.
            latent: Random numbers that are shown beside every token; 0 for none.
            latent_rate: Factor of their projection.
            kwargs: What all configurations take, and LLaDA's constants.
        """
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.mlp_hidden_size = mlp_hidden_size
        self.rope_theta = rope_theta
        self.rms_norm_eps = rms_norm_eps
        self.max_sequence_length = max_sequence_length
        self.mask_token_id = mask_token_id
        self.process = dict(process or {})
        self.latent = latent
        self.latent_rate = latent_rate
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
