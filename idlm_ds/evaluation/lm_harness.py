"""A saved model as evaluation harnesses want one: text in, text and likelihoods out."""

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
"""What a request may settle; the model's arguments settle the rest for all of them."""

MOST = 256
"""Tokens of a text where a request sets no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessOptions(CompletionOptions):
    """Arguments of the model, as people type them."""

    pretrained: str
    """A checkpoint, as everywhere."""

    mc_samples: int = option(128, flag="mc_samples", rule=AT_LEAST_1)
    """Draws for a likelihood."""

    pad: bool = True
    """Whether likelihoods, too, are those of full sequences, masks standing behind the text; false
    for models that were trained on texts of any length, such as LLaDA."""

    check_greedy: bool = True
    """Whether to find out if a continuation is the greedy one, which few tasks ask for; takes up to
    one more network call a token."""

    device: str = "cuda"


@final
@dataclass(slots=True)
class Harness:
    """A model, and what it has cost so far.

    What comes of a request depends on the request and the arguments only, and on how often the same
    one came before: not on other requests, and not on the batch.
    """

    model: Completer
    options: HarnessOptions
    spent: dict[str, Speed] = field(default_factory=dict)

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "Harness":
        """Load a model.

        Args:
            arguments: Fields of ``HarnessOptions``, and what lm-eval adds: its ``batch_size`` is
                that of ``--batch_size``, whose default of 1 says nothing.

        Raises:
            UserError: An argument is unknown or out of range, or the model cannot be used.
        """
        told = {k: v for k, v in arguments.items() if k not in ("batch_size", "max_batch_size")}
        size = str(arguments.get("batch_size", ""))
        if size.isdecimal() and size != "1":
            told.setdefault("batch", int(size))
        options = build(HarnessOptions, told, "model_args")
        # lm-eval names the first GPU by default, whether there is one or not.
        device = torch.device(options.device if torch.cuda.is_available() else "cpu")
        return cls(open_completer(options.pretrained, options, device), options)

    def generate(
        self, requests: Sequence[tuple[str, Mapping[str, Any]]], *, quiet: bool = False
    ) -> list[str]:
        """Write on behind texts, up to the first of a request's stop texts.

        A text that leaves less room than a request asks for, and less than half of a sequence, is
        cut on the left.
        """
        ignored = sorted({key for _, told in requests for key in told if key not in FOLLOWED})
        if ignored:
            say(f"requests also ask for {', '.join(ignored)}; model_args decide these")
        came, jobs = Counter[str](), []
        for text, told in requests:
            came[text] += 1
            most = int(told.get("max_gen_toks", MOST))
            jobs.append((self._prompt(text, most), derive_seed(came[text], text), most))
        written: list[Completion] = []
        began, batch = time.perf_counter(), self.options.batch
        for first in tqdm(range(0, len(jobs), batch), unit="batch", disable=quiet):
            prompts, samples, most_of = zip(*jobs[first : first + batch], strict=True)
            written += self.model.complete(
                prompts, samples, stream="generate", batch=batch, most=most_of
            )
        seconds = time.perf_counter() - began
        texts = [_until(one.text, told) for one, (_, told) in zip(written, requests, strict=True)]
        tokens = sum(map(len, self.model.tokenizer.encode(texts)))
        nfe = sum(one.nfe for one in written)
        self._spend(
            "generate_until", Speed(count=len(texts), tokens=tokens, nfe=nfe, seconds=seconds)
        )
        return texts

    def score(
        self, pairs: Sequence[tuple[str, str]], *, quiet: bool = False
    ) -> list[tuple[float, bool]]:
        """Bound how likely texts go on as given; see ``metrics/continuation.py``.

        A text too long for a sequence together with its continuation is cut on the left.

        Returns:
            Nats, and whether the continuation is the greedy one (False where not looked at).

        Raises:
            UserError: The family masks nothing, or a continuation is longer than a sequence.
        """
        began, found = time.perf_counter(), []
        for pair in tqdm(pairs, unit="continuation", disable=quiet):
            found.append(
                self._score(*self._split(*pair), name=pair, greedy=self.options.check_greedy)
            )
        self._spend("loglikelihood", _speed(found, time.perf_counter() - began))
        return [(one.nats, one.is_greedy) for one in found]

    def score_whole(self, texts: Sequence[str], *, quiet: bool = False) -> list[float]:
        """Bound how likely texts are, in pieces that fill a sequence and know nothing of others.

        Raises:
            UserError: The family masks nothing.
        """
        began, room = time.perf_counter(), self.model.length - self.model.bos
        found: list[list[_Scored]] = []
        for text in tqdm(texts, unit="text", disable=quiet):
            ids = self.model.tokenizer.encode([text])[0]
            pieces = range(0, len(ids), room)
            found.append([self._score([], ids[i : i + room], name=(text, i)) for i in pieces])
        every = [one for pieces in found for one in pieces]
        self._spend("loglikelihood_rolling", _speed(every, time.perf_counter() - began))
        return [sum(one.nats for one in pieces) for pieces in found]

    def info(self) -> dict[str, Any]:
        """Arguments, and what requests have cost: calls a sequence, tokens a call and a second."""
        spent = {kind: speed.figures() for kind, speed in self.spent.items()}
        return {"idlm_ds": {**asdict(self.options), "device": str(self.model.device), **spent}}

    def _spend(self, kind: str, speed: Speed) -> None:
        self.spent[kind] = speed + self.spent[kind] if kind in self.spent else speed
        say(f"{kind}: {speed}")

    def _prompt(self, text: str, most: int) -> list[int]:
        free = min(most, self.model.length // 2)
        return self._fitted(self.model.tokenizer.encode([text])[0], self.model.length - free)

    def _fitted(self, ids: Sequence[int], room: int) -> list[int]:
        """The opening token and the last of these that fit in as many positions."""
        head = self.model.encode("")
        return [*head, *ids[max(0, len(ids) - room + len(head)) :]]

    def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both; they are cut from each other as they stand, words with their spaces."""
        ends = len(context.rstrip())
        context, continuation = context[:ends], context[ends:] + continuation
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
        if not ids:
            return _Scored(0.0, True, 0, 0)
        head = self._fitted(before, length - len(ids))
        if len(head) + len(ids) > length:
            raise UserError(
                f"loglikelihood: {len(ids)} tokens to be scored, but a sequence has {length}"
            )
        masks = (length - len(head) - len(ids)) * self.options.pad
        row = torch.tensor([*head, *ids, *[process.mask_id] * masks], device=self.model.device)
        asked = torch.arange(len(head), len(head) + len(ids), device=self.model.device)
        noise = Noise([derive_seed(self.model.seed, "likelihood", *name)], device=self.model.device)
        bound = continuation_bound(
            process,
            self.model.network,
            row,
            asked,
            draws=self.options.mc_samples,
            noise=noise,
            batch=self.options.batch,
        )
        said, calls = is_greedy(process, self.model.network, row, asked) if greedy else (False, 0)
        return _Scored(bound.nats, said, len(ids), bound.evaluations + calls)


@final
@dataclass(frozen=True, slots=True)
class _Scored:
    nats: float
    is_greedy: bool
    tokens: int
    nfe: int


def _speed(found: Sequence[_Scored], seconds: float) -> Speed:
    tokens, nfe = sum(one.tokens for one in found), sum(one.nfe for one in found)
    return Speed(count=len(found), tokens=tokens, nfe=nfe, seconds=seconds)


def _until(text: str, told: Mapping[str, Any]) -> str:
    """What stands before the first stop text of a request."""
    until = told.get("until") or []
    stops = [text.find(stop) for stop in ([until] if isinstance(until, str) else until) if stop]
    return text[: min((at for at in stops if at >= 0), default=len(text))]
