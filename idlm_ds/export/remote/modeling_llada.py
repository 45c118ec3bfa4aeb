"""An exported network of LLaDA's architecture as a model of transformers."""

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from idlm_ds.export.remote.configuration_llada import LLaDAConfig
from idlm_ds.export.remote.diffusion import DiffusionGenerationMixin
from idlm_ds.models.llada import LLaDA, WordEmbedding
from idlm_ds.models.llada import LLaDAConfig as Sizes
from idlm_ds.processes.base import Read
from idlm_ds.tensor_types import NetworkInput, Time


class LLaDAModelLM(DiffusionGenerationMixin, PreTrainedModel):
    """Scores of every word at every position, and samples in few steps."""

    config_class = LLaDAConfig
    main_input_name = "input_ids"
    _no_split_modules = ["LLaDABlock"]
    output_class = CausalLMOutput

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        sizes = Sizes(
            vocab_size=config.vocab_size,
            hidden=config.d_model,
            blocks=config.n_layers,
            heads=config.n_heads,
            ffn=config.mlp_hidden_size,
            rope_base=config.rope_theta,
            norm_eps=config.rms_norm_eps,
            latent=config.latent,
            latent_rate=config.latent_rate,
        )
        self.model = LLaDA(sizes).model
        self.post_init()

    def denoise(self, x: NetworkInput, sigma: Time, read: Read) -> Tensor:
        """See base class."""
        del sigma
        return self.model["transformer"](x, read)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of tokens."""
        return self.get_submodule("model.transformer.wte")

    def get_output_embeddings(self) -> nn.Module:
        """Return the projection to scores."""
        return self.get_submodule("model.transformer.ff_out")

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, WordEmbedding):
            nn.init.normal_(module.weight, std=0.02)
