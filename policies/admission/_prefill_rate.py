"""How quickly prompts are computed, as a gateway can measure it."""

from __future__ import annotations

from collections import deque


class PrefillRate:
    """The most prompt tokens a second that got their first token within any window so far.

    The most, since what is measured while little is to do says little about what could be done. It is looked at when
    requests arrive, so a window is no shorter than ``window_s`` and ends at an arrival.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()
        self.tokens_per_s = 0.0

    def look(self, now_s: float, started_tokens: int) -> float:
        """Take in how many prompt tokens have got so far; return the rate, 0 while nothing was measured."""
        seen = self._seen
        seen.append((now_s, started_tokens))
        while len(seen) > 1 and seen[1][0] <= now_s - self._window_s:
            seen.popleft()
        since_s, before = seen[0]
        if now_s - since_s >= self._window_s:
            self.tokens_per_s = max(self.tokens_per_s, (started_tokens - before) / (now_s - since_s))
        return self.tokens_per_s
