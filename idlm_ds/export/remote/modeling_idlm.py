"""An exported diffusion transformer as a model of transformers."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from idlm_ds.export.remote.configuration_idlm import IDLMConfig
from idlm_ds.export.remote.diffusion import DiffusionGenerationMixin
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.embed import SoftEmbedding
from idlm_ds.processes.base import Read
from idlm_ds.tensor_types import NetworkInput, Time


class IDLMForMaskedLM(DiffusionGenerationMixin, PreTrainedModel):
    """Scores of every word at every position, and samples in few steps."""

    config_class = IDLMConfig
    main_input_name = "input_ids"
    _no_split_modules = ["Block"]
    # A buffer of the published networks, which is computed here.
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]

    def __init__(self, config: IDLMConfig) -> None:
        super().__init__(config)
        self.backbone = DiT(
            DiTConfig(
                vocab_size=config.vocab_size,
                hidden=config.hidden_dim,
                blocks=config.n_blocks,
                heads=config.n_heads,
                cond=config.cond_dim,
                mlp_ratio=config.mlp_ratio,
                dropout=config.dropout,
                time_conditioning=config.time_conditioning,
                latent=config.latent,
                latent_rate=config.latent_rate,
            )
        )
        self.post_init()

    def denoise(self, x: NetworkInput, sigma: Time, read: Read) -> Tensor:
        """See base class."""
        return self.backbone(x, sigma, read)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of tokens."""
        return self.backbone.vocab_embed

    def get_output_embeddings(self) -> nn.Module:
        """Return the projection to scores."""
        return self.backbone.output_layer.linear

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SoftEmbedding):
            nn.init.normal_(module.embedding, std=0.02)
