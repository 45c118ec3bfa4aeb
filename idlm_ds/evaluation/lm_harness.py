"""A saved model for evaluation harnesses: text in, text and likelihoods out."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from tqdm import tqdm

from idlm_ds.console import say
from idlm_ds.errors import UserError
from idlm_ds.evaluation.completion import Completer, Completion, Speed, open_completer
from idlm_ds.evaluation.options import CompletionOptions
from idlm_ds.metrics.continuation import continuation_bound, is_greedy
from idlm_ds.noise import Noise, derive_seed
from idlm_ds.options import AT_LEAST_1, option
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.recipes.typed import build

FOLLOWED = ("until", "max_gen_toks")
"""Settings that a request decides; the model's arguments decide the others for all requests."""

MOST = 256
"""Tokens of a text if its request sets no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessOptions(CompletionOptions):
    """Arguments of the model, as people type them."""

    pretrained: str
    """A checkpoint, as everywhere."""

    mc_samples: int = option(128, flag="mc_samples", rule=AT_LEAST_1)
    """Draws for a likelihood."""

    pad: bool = True
    """Whether likelihoods are those of full sequences, padded with masks after the text; false for
    models that were trained on texts of any length, such as LLaDA."""

    check_greedy: bool = True
    """Whether to check if a continuation is the greedy one, which few tasks use; costs up to one
    more network call a token."""

    device: str = "cuda"


@final
@dataclass(slots=True)
class Harness:
    """A model and its cost so far.

    An answer depends on the request, on the arguments, and on how often the same request came
    before; not on other requests, and not on the batch.
    """

    model: Completer
    options: HarnessOptions
    spent: dict[str, Speed] = field(default_factory=dict)

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "Harness":
        """Load a model by fields of ``HarnessOptions``, and by what lm-eval adds to them.

        ``batch_size`` is that of lm-eval's ``--batch_size``; its default of 1 is ignored.

        Raises:
            UserError: An argument is unknown or out of range, or the model cannot be used.
        """
        settings = {k: v for k, v in arguments.items() if k not in ("batch_size", "max_batch_size")}
        size = str(arguments.get("batch_size", ""))
        if size.isdecimal() and size != "1":
            settings.setdefault("batch", int(size))
        options = build(HarnessOptions, settings, "model_args")
        # lm-eval names the first GPU by default, whether there is one or not.
        device = torch.device(options.device if torch.cuda.is_available() else "cpu")
        return cls(open_completer(options.pretrained, options, device), options)

    def generate(
        self, requests: Sequence[tuple[str, Mapping[str, Any]]], *, quiet: bool = False
    ) -> list[str]:
        """Continue texts, up to the first of a request's stop texts.

        A text is cut on the left if it leaves less room than its request asks for and less than
        half of a sequence.
        """
        ignored = sorted({key for _, kwargs in requests for key in kwargs if key not in FOLLOWED})
        if ignored:
            say(f"requests also ask for {', '.join(ignored)}; model_args decide these")
        repeats, jobs = Counter[str](), []
        for text, kwargs in requests:
            repeats[text] += 1
            most = int(kwargs.get("max_gen_toks", MOST))
            jobs.append((self._prompt(text, most), derive_seed(repeats[text], text), most))
        completions: list[Completion] = []
        began, batch = time.perf_counter(), self.options.batch
        for first in tqdm(range(0, len(jobs), batch), unit="batch", disable=quiet):
            prompts, samples, most_of = zip(*jobs[first : first + batch], strict=True)
            completions += self.model.complete(
                prompts, samples, stream="generate", batch=batch, most=most_of
            )
        seconds = time.perf_counter() - began
        texts = [
            _until(completion.text, kwargs)
            for completion, (_, kwargs) in zip(completions, requests, strict=True)
        ]
        tokens = sum(map(len, self.model.tokenizer.encode(texts)))
        nfe = sum(completion.nfe for completion in completions)
        speed = Speed(count=len(texts), tokens=tokens, nfe=nfe, seconds=seconds)
        self._spend("generate_until", speed)
        return texts

    def score(
        self, pairs: Sequence[tuple[str, str]], *, quiet: bool = False
    ) -> list[tuple[float, bool]]:
        """Bound the log-likelihood of continuations; see ``metrics/continuation.py``.

        A text too long for a sequence together with its continuation is cut on the left.

        Returns:
            Nats, and whether the continuation is the greedy one (False where not checked).

        Raises:
            UserError: The family masks nothing, or a continuation is longer than a sequence.
        """
        began, scores = time.perf_counter(), []
        for pair in tqdm(pairs, unit="continuation", disable=quiet):
            before, ids = self._split(*pair)
            scores.append(self._score(before, ids, name=pair, greedy=self.options.check_greedy))
        self._spend("loglikelihood", _speed(scores, time.perf_counter() - began))
        return [(score.nats, score.is_greedy) for score in scores]

    def score_whole(self, texts: Sequence[str], *, quiet: bool = False) -> list[float]:
        """Bound the log-likelihood of texts, in independent pieces that fill a sequence.

        Raises:
            UserError: The family masks nothing.
        """
        began, room = time.perf_counter(), self.model.length - self.model.bos
        scores: list[list[_Scored]] = []
        for text in tqdm(texts, unit="text", disable=quiet):
            ids = self.model.tokenizer.encode([text])[0]
            pieces = range(0, len(ids), room)
            scores.append([self._score([], ids[i : i + room], name=(text, i)) for i in pieces])
        flat = [score for text_scores in scores for score in text_scores]
        self._spend("loglikelihood_rolling", _speed(flat, time.perf_counter() - began))
        return [sum(score.nats for score in text_scores) for text_scores in scores]

    def info(self) -> dict[str, Any]:
        """Return the arguments, and the cost of each kind of request."""
        spent = {kind: speed.figures() for kind, speed in self.spent.items()}
        return {"idlm_ds": {**asdict(self.options), "device": str(self.model.device), **spent}}

    def _spend(self, kind: str, speed: Speed) -> None:
        self.spent[kind] = speed + self.spent[kind] if kind in self.spent else speed
        say(f"{kind}: {speed}")

    def _prompt(self, text: str, most: int) -> list[int]:
        free = min(most, self.model.length // 2)
        return self._fitted(self.model.tokenizer.encode([text])[0], self.model.length - free)

    def _fitted(self, ids: Sequence[int], room: int) -> list[int]:
        """Keep the opening token and the last of ``ids`` that fit in ``room`` positions."""
        head = self.model.encode("")
        return [*head, *ids[max(0, len(ids) - room + len(head)) :]]

    def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenize both as one text and cut it where the continuation begins, with its space."""
        end = len(context.rstrip())
        context, continuation = context[:end], context[end:] + continuation
        whole, before = self.model.tokenizer.encode([context + continuation, context])
        return before, whole[len(before) :]

    def _score(
        self,
        before: Sequence[int],
        ids: Sequence[int],
        *,
        name: tuple[str | int, ...],
        greedy: bool = False,
    ) -> "_Scored":
        process, length = self.model.process, self.model.length
        if not isinstance(process, Absorbing):
            raise UserError(
                "loglikelihood: needs a masked family; of others there is no bound here"
            )
        if latent := self.model.config.latent:
            raise UserError(
                f"loglikelihood: a student with a latent of {latent} is a mixture, whose "
                "likelihood has no bound here; generate_until works"
            )
        if not ids:
            return _Scored(0.0, True, 0, 0)
        head = self._fitted(before, length - len(ids))
        if len(head) + len(ids) > length:
            raise UserError(
                f"loglikelihood: {len(ids)} tokens to be scored, but a sequence has {length}"
            )
        options, network, device = self.options, self.model.network, self.model.device
        masks = (length - len(head) - len(ids)) * options.pad
        row = torch.tensor([*head, *ids, *[process.mask_id] * masks], device=device)
        scored = torch.arange(len(head), len(head) + len(ids), device=device)
        noise = Noise([derive_seed(self.model.seed, "likelihood", *name)], device=device)
        draws, batch = options.mc_samples, options.batch
        bound = continuation_bound(
            process, network, row, scored, draws=draws, noise=noise, batch=batch
        )
        matches, calls = is_greedy(process, network, row, scored) if greedy else (False, 0)
        return _Scored(bound.nats, matches, len(ids), bound.evaluations + calls)


@final
@dataclass(frozen=True, slots=True)
class _Scored:
    nats: float
    is_greedy: bool
    tokens: int
    nfe: int


def _speed(scores: Sequence[_Scored], seconds: float) -> Speed:
    tokens, nfe = sum(score.tokens for score in scores), sum(score.nfe for score in scores)
    return Speed(count=len(scores), tokens=tokens, nfe=nfe, seconds=seconds)


def _until(text: str, kwargs: Mapping[str, Any]) -> str:
    """Cut a text before the first stop text of its request."""
    until = kwargs.get("until") or []
    stops = [text.find(stop) for stop in ([until] if isinstance(until, str) else until) if stop]
    return text[: min((at for at in stops if at >= 0), default=len(text))]
