"""Base class of all exported models: forward pass, noising, losses and sampling.

Shapes: B sequences, L positions, V vocabulary entries.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin
from transformers.modeling_outputs import MaskedLMOutput
from transformers.utils import ModelOutput

from idlm_ds.noise import Noise, stratified_times
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Noisy, Process, Read, at
from idlm_ds.processes.by_name import make_process
from idlm_ds.processes.latent import draw_latent, show_latent
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.registry.families import sampled_as
from idlm_ds.registry.samplers import ANCESTRAL, DRAWN, FLOAT64, PRECISIONS, SAMPLERS, TAILS
from idlm_ds.samplers.batched import OnBatchStep, sample_batched
from idlm_ds.samplers.blockwise import sample_blockwise
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.tensor_types import NetworkInput, Time

IGNORED = -100
"""Label of a position that is not scored."""

REVERSE_CHAIN: Mapping[str, Any] = {
    "steps": 8,
    "precision": FLOAT64,
    "tail": DRAWN,
    "temperature": 1.0,
    "nucleus": 1.0,
}
"""Settings of samplers that run a reverse chain, unless the caller or the folder gives others."""

BLOCKWISE: Mapping[str, Any] = {
    "steps": 8,
    "temperature": 1.0,
    "block": None,
    "remasking": "low_confidence",
    "guidance": 0.0,
    "banned": (),
}
"""Settings of the sampler that continues prompts; block None is the whole length."""

CHOICES = {"sampler": SAMPLERS, "precision": PRECISIONS, "tail": TAILS}


class DiffusionGenerationMixin(GenerationMixin):
    """A network of a diffusion family, beside ``PreTrainedModel``."""

    output_class: type[ModelOutput] = MaskedLMOutput

    @property
    def trained_length(self) -> int:
        """Positions of a training sequence."""
        return self.config.max_position_embeddings

    @property
    def is_told_time(self) -> bool:
        """Whether the network is shown the noise level."""
        return getattr(self.config, "time_conditioning", False)

    @abstractmethod
    def denoise(self, x: NetworkInput, sigma: Time, read: Read) -> Tensor:
        """Run the network on ``x`` at total noise ``sigma`` and read what is wanted."""

    @property
    def process(self) -> Process:
        """The diffusion family.

        Raises:
            ValueError: The configuration names none that is known.
        """
        settings = self.config.process
        settings = {**settings, "name": sampled_as(settings.get("name"))}
        return make_process(settings, self.config.vocab_size, self.config.mask_token_id)

    def forward(
        self,
        input_ids: Tensor,
        timesteps: Tensor | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        latents: Tensor | None = None,
    ) -> Any:
        """Score every word at every position.

        Args:
            input_ids: Noisy tokens (B, L).
            timesteps: Total noise ``-log alpha`` of each sequence, as in the published code of MDLM
                and Duo; not a time in [0, 1]. None is 0 for a network that is not told it; for
                one that is, masked families take the noise at which as many tokens are masked.
            labels: Clean tokens (B, L), -100 where nothing is asked. Masked families are scored by
                the cross-entropy at masked positions, the others by their own bound at
                ``timesteps``; both as nats per scored position. See ``noised``.
            attention_mask: May only say that every position counts.
            return_dict: False for a tuple.
            latents: Standard normal numbers (B, L, Z), for a network with a latent of Z; the less
                the tokens tell, the more of them is shown.

        Returns:
            ``logits`` (B, L, V), float32, as the network gives them, and ``loss`` with ``labels``.

        Raises:
            ValueError: Some positions are to be left out, the noise is neither given nor known, or
                the latent is missing or one too many.
        """
        _refuse_padding(attention_mask)
        sigma = self._sigma(input_ids, timesteps)
        everywhere = torch.arange(input_ids.numel(), device=input_ids.device)
        shown = self._shown(input_ids, timesteps, sigma, latents)
        logits = self.denoise(shown, sigma, at(everywhere)).view(*input_ids.shape, -1)
        loss = None if labels is None else self._loss(logits, input_ids, timesteps, labels)
        output = self.output_class(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output

    def _shown(
        self, x: Tensor, timesteps: Tensor | None, sigma: Tensor, latents: Tensor | None
    ) -> NetworkInput:
        size, process = self.config.latent, self.process
        given = None if latents is None else tuple(latents.shape)
        if given != ((*x.shape, size) if size else None):
            wanted = f"takes normal numbers of shape {(*x.shape, size)}" if size else "takes none"
            raise ValueError(f"latents: this network {wanted}; given: {given}")
        if size and timesteps is None and not isinstance(process, Absorbing):
            raise ValueError("timesteps: needed with a latent in families without a mask")
        return show_latent(process, x, latents, x_t=x, sigma=sigma)

    def _sigma(self, x: Tensor, timesteps: Tensor | float | None) -> Tensor:
        if timesteps is not None:
            return torch.as_tensor(timesteps, device=x.device).flatten().expand(len(x))
        process = self.process
        if not self.is_told_time:
            return torch.zeros(len(x), device=x.device)
        if not isinstance(process, Absorbing):
            raise ValueError("timesteps: needed, since nothing in the tokens tells their noise")
        return process.sigma_of(x)

    def _loss(
        self, logits: Tensor, x_t: Tensor, timesteps: Tensor | None, labels: Tensor
    ) -> Tensor:
        process, is_scored = self.process, labels != IGNORED
        if isinstance(process, Absorbing):
            is_scored = is_scored & (x_t == process.mask_id)
            log_probs = process.predict(logits[is_scored])
            nats = -log_probs.gather(1, labels[is_scored][:, None])
        elif timesteps is None:
            raise ValueError("timesteps: needed with labels in families without a mask")
        else:
            alpha = torch.exp(-self._sigma(x_t, timesteps).double())
            positions = is_scored.flatten().nonzero()[:, 0]
            tokens = labels.where(is_scored, 0)
            noisy = Noisy(
                x_0=SoftTokens.hard(tokens, vocab_size=process.vocab_size),
                x_t=x_t,
                x_in=x_t,
                at_t=process.schedule.at(process.schedule.inverse(alpha)),
                positions=positions,
            )
            nats = process.loss(logits.flatten(0, 1)[positions], noisy)
        return (nats.sum() / is_scored.sum().clamp(min=1)).float()

    @torch.no_grad()
    def noised(self, input_ids: Tensor, *, seed: int) -> dict[str, Tensor]:
        """Draw a time for each sequence and noise it: what ``forward`` takes for one step.

        Args:
            input_ids: Clean tokens (B, L).
            seed: Another one for every step.
        """
        process, count, device = self.process, len(input_ids), input_ids.device
        t_min = self.config.process.get("t_min", 0.0)
        t = stratified_times(seed, "time", count=count, t_min=t_min).to(device)
        noise = Noise.of_samples(seed, "corrupt", samples=range(count), device=device)
        x_0 = SoftTokens.hard(input_ids, vocab_size=process.vocab_size)
        noisy = process.corrupt(x_0, t, noise=noise)
        z = draw_latent(self.config.latent, input_ids.shape[1], noise=noise)
        fields = {"input_ids": noisy.x_t, "timesteps": noisy.at_t.sigma, "labels": input_ids}
        return fields if z is None else {**fields, "latents": z}

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        num_samples: int | None = None,
        seed: int = 0,
        length: int | None = None,
        batch: int = 64,
        on_step: OnBatchStep | None = None,
        **settings: Any,
    ) -> Tensor:
        """Draw samples; each is a function of ``seed`` and its place alone, on one kind of device.

        Args:
            input_ids: Prompts (B, L) to continue, or one (L,) for all; with ``sampler="blockwise"``
                only.
            attention_mask: May only say that every position counts.
            num_samples: How many; 1, or the number of prompts, where not given.
            seed: Seed of the set.
            length: Tokens to draw; as in training, the prompt included, where not given.
            batch: Sequences at a time.
            on_step: Watches: ``on_step(samples, k, t, x_t, revealed)`` is called after step k of
                each batch, with the indices of its samples, the time reached (blockwise: the share
                of new tokens still masked), the tokens (B, L) and which of them are new (B, L).
            settings: ``sampler`` is ancestral, analytic, euler or blockwise. All take ``steps`` and
                ``temperature``; those that run a reverse chain ``precision``, ``tail`` and
                ``nucleus``; blockwise ``block``, ``remasking``, ``guidance`` and ``banned``.
                What is not given is read from ``generation_config``.

        Returns:
            Token ids, prompts included.

        Raises:
            ValueError: A setting is out of range, or means nothing to the sampler or the family.
        """
        _refuse_padding(attention_mask)
        for name, value in (("num_samples", num_samples), ("batch", batch)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be at least 1, got {value}")
        sampler, arguments = self._settings(settings)
        common: dict[str, Any] = {"seed": seed, "batch": batch, "on_step": on_step}
        if not SAMPLERS[sampler].is_chain:
            prompts = self._prompts(input_ids, num_samples)
            return self._continue(prompts, length, arguments, **common)
        if input_ids is not None:
            raise ValueError(f"input_ids: {sampler} continues no prompt; use blockwise")
        sampled = sample_batched(
            self.process,
            self.denoise,
            range(num_samples or 1),
            SamplerConfig(sampler=sampler, latent=self.config.latent, **arguments),
            length=self.trained_length if length is None else length,
            stream="sample",
            device=self.device,
            **common,
        )
        return sampled.tokens.to(self.device)

    def _settings(self, requested: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        def setting(name: str, default: Any) -> Any:
            given = (requested.get(name), getattr(self.generation_config, name, None), default)
            value = next((v for v in given if v is not None), None)
            if value not in CHOICES.get(name, (value,)):
                raise ValueError(f"{name}: must be one of {', '.join(CHOICES[name])}, got {value}")
            return value

        sampler = setting("sampler", ANCESTRAL)
        known = REVERSE_CHAIN if SAMPLERS[sampler].is_chain else BLOCKWISE
        if unknown := requested.keys() - known.keys() - {"sampler"}:
            raise ValueError(f"{min(unknown)}: means nothing to sampler {sampler}")
        return sampler, {name: setting(name, default) for name, default in known.items()}

    def _prompts(self, input_ids: Tensor | None, num_samples: int | None) -> Tensor:
        if input_ids is None:
            return torch.zeros(num_samples or 1, 0, dtype=torch.long, device=self.device)
        prompts = torch.atleast_2d(input_ids).to(self.device)
        count = num_samples or len(prompts)
        if len(prompts) not in (1, count):
            raise ValueError(
                f"num_samples: {count} of {len(prompts)} prompts; give one, or as many"
            )
        return prompts.expand(count, -1)

    def _continue(
        self,
        prompts: Tensor,
        length: int | None,
        arguments: dict[str, Any],
        *,
        seed: int,
        batch: int,
        on_step: OnBatchStep | None,
    ) -> Tensor:
        process, block = self.process, arguments["block"]
        if not isinstance(process, Absorbing):
            raise ValueError("sampler: blockwise needs a masked family; use ancestral")
        if length is None:
            room = self.trained_length - prompts.shape[1]
            length = room - room % max(block or 1, 1)
        arguments = {
            **arguments,
            "length": length,
            "block": length if block is None else block,
            "latent": self.config.latent,
        }
        parts = []
        for first in range(0, len(prompts), batch):
            given = prompts[first : first + batch]
            samples = range(first, first + len(given))
            noise = Noise.of_samples(seed, "sample", samples=samples, device=self.device)
            watch = partial(on_step, samples) if on_step else None
            sampled = sample_blockwise(
                process, self.denoise, given, noise=noise, on_step=watch, **arguments
            )
            parts.append(sampled.tokens)
        return torch.cat(parts)


def _refuse_padding(attention_mask: Tensor | None) -> None:
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ValueError("attention_mask: every position is attended to; pass no padding")
