"""Progress of a run on the console."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from idlm_ds.console import say
from idlm_ds.train.loop import PhaseRecord


class Progress:
    """A bar on a terminal, occasional lines in a log file."""

    def __init__(self, names: Mapping[str, str], *, start: int, stop: int, every: int) -> None:
        """Start the display.

        Args:
            names: What to call the loss of each phase.
            start: Phases done before.
            stop: Phases in all.
            every: Phases from one update to the next.
        """
        self._names = names
        self._latest: dict[str, PhaseRecord] = {}
        self._every = every
        self._stop = stop
        self._start = start
        self._began = time.perf_counter()
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=stop,
            initial=start,
            unit="phase",
            dynamic_ncols=True,
            disable=not self._is_terminal,
            bar_format="{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} eta {remaining} {postfix}",
        )

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``."""
        self._latest[record.phase] = record
        done = record.step + 1
        if done % self._every and done != self._stop:
            return
        if self._is_terminal:
            self._bar.set_postfix_str(self._figures(record), refresh=False)
            self._bar.update(done - self._bar.n)
        else:
            spent = time.perf_counter() - self._began
            left = spent / max(1, done - self._start) * (self._stop - done)
            say(f"phase {done:>5}/{self._stop}  eta {left:5.0f} s  {self._figures(record)}")

    def close(self) -> None:
        """See ``Hook``."""
        self._bar.close()

    def _figures(self, record: PhaseRecord) -> str:
        share = record.loader_wait_s / (record.loader_wait_s + record.phase_s)
        losses = "  ".join(
            f"{self._names[k]} {r.loss:.3f}"
            for k, r in sorted(self._latest.items())
            if r.loss is not None
        )
        mfu = "" if record.mfu is None else f"MFU {record.mfu:.0%}  "
        return (
            f"{losses}  |grad| {record.grad_norm:.2f}  {record.tokens_per_s:,.0f} tok/s  {mfu}"
            f"{record.memory_gb:.1f} GB  wait {record.loader_wait_s * 1e3:.1f} ms = {share:.2%}"
        )
