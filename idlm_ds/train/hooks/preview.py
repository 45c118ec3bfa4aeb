"""Printed samples of the student during training."""

from typing import final

from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.trio import Learner
from idlm_ds.metrics.entropy import distinct_ngrams, unigram_entropy
from idlm_ds.processes.base import Process
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.block_config import AnySampler
from idlm_ds.train.loop import PhaseRecord

COUNT = 16
"""Samples a rank draws; entropies and distinct bigrams are of these, one is shown."""


@final
class Preview:
    """Samples from the running-mean student, with the figures in which a collapse shows first."""

    def __init__(
        self,
        student: Learner,
        process: Process,
        tokenizer: Tokenizer,
        *,
        every: int,
        chain: AnySampler,
        length: int,
        seed: int,
        world: World,
    ) -> None:
        self._student = student
        self._process = process
        self._tokenizer = tokenizer
        self._every = every
        self._chain = chain
        self._length = length
        self._seed = seed
        self._world = world

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``. Collective: every rank must have this hook."""
        if record.phase != "student" or not self._every or record.update % self._every:
            return
        first = self._world.rank * COUNT
        with self._student.ema.in_place():
            sampled = sample_batched(
                self._process,
                self._student.module,
                range(first, first + COUNT),
                self._chain,
                length=self._length,
                seed=self._seed,
                stream="preview",
                batch=COUNT,
                device=self._world.device,
            )
        if self._world.is_first:
            text = self._tokenizer.decode(sampled.tokens[:1].tolist())[0]
            entropies = unigram_entropy(sampled.tokens)
            distinct = distinct_ngrams(sampled.tokens)
            say(
                f"  student after {record.update} updates, {self._chain.steps} steps, "
                f"{COUNT} samples: entropy {entropies.mean().item():.2f} nats, "
                f"lowest {entropies.min().item():.2f}, distinct bigrams {distinct:.2f}"
            )
            say(f"  | {' '.join(text.split())}")

    def close(self) -> None:
        """See ``Hook``."""
