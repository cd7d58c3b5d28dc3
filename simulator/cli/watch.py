"""What the terminal shows of a run: what was decided, how far it is, what came out; and Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from simulator.runner import Watch

if TYPE_CHECKING:
    from simulator.cli.progress import ClusterProgress
    from simulator.resolve import Resolved
    from simulator.result import RunResult
    from workloads import Trace


class TerminalWatch(Watch):
    """Prints what was decided, shows a bar on a terminal, and turns Ctrl-C into an early end that keeps what is done.

    Parameters
    ----------
    quiet
        Print nothing.
    bar
        Show the bar, if standard error is a terminal.
    """

    def __init__(self, *, quiet: bool, bar: bool) -> None:
        self.interrupted = False
        self._quiet = quiet
        self._bar = bar and sys.stderr.isatty()
        self._progress: ClusterProgress | None = None
        self._old_handler: Any = None

    def resolved(self, resolved: Resolved, trace: Trace) -> None:
        """Print model, GPUs, limits, memory and requests in a few lines."""
        if self._quiet:
            return
        from simulator.resolve import limit_lines

        scenario = resolved.scenario
        loop = scenario.workload.loop
        sent = {
            "open": f"open loop over {float(trace.arrival_s[-1]):,.1f} s",
            "closed": f"closed loop of {loop.clients} clients",
            "sessions": "sessions",
        }
        lines = [
            ("Requests", f"{len(trace):,} from {trace.source}, {sent[loop.kind]}, seed {scenario.seed}"),
            ("Model", _model_line(resolved)),
            *limit_lines(resolved.pools),
            ("Router", scenario.router.name),
        ]
        width = max(len(label) for label, _ in lines)
        print("\n".join(f"{label:<{width}}  {text}" for label, text in lines) + "\n", flush=True)

    def __enter__(self) -> Self:
        """Take over Ctrl-C, and begin to show progress."""
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGINT, self._on_interrupt)
        if self._bar:
            from simulator.cli.progress import ClusterProgress

            self._progress = ClusterProgress(self.cluster)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both."""
        if self._progress is not None:
            self._progress.stop()
        if self._old_handler is not None:
            signal.signal(signal.SIGINT, self._old_handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """End the run after the event in hand; a second Ctrl-C ends the process as usual."""
        self.interrupted = True
        signal.signal(signal.SIGINT, self._old_handler)
        self.cluster.interrupt()

    def print_result(self, result: RunResult, out: str | None) -> None:
        """Print the summary."""
        from rich.console import Console

        from simulator.terminal import print_summary

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
        if self.interrupted:
            console.print("Interrupted: figures are of what was done until then.\n")
        print_summary(result.summary, console, out_dir=None if out is None else Path(out))


def _model_line(resolved: Resolved) -> str:
    """Return the model's name, and its datatypes where all pools have the same."""
    models = list(dict.fromkeys(each.model.name for each in resolved.pools))
    if len(models) > 1:
        return ", ".join(models)
    model = resolved.pools[0].model
    kinds = {(each.pool.dtypes.weights, each.pool.dtypes.kv) for each in resolved.pools}
    if len(kinds) > 1:
        return model.name
    weights, kv = kinds.pop()
    stored = weights or f"{model.default_dtype}, as published"
    return f"{model.name} (weights {stored}; KV {kv})"
