"""``python -m benchmarks.first_event run TRACE ...``: as ``simulate``, up to the first event.

It prints the clock (seconds since the epoch) at which the simulation would have begun, all being loaded and built.
"""

from __future__ import annotations

import os
import time
from typing import NoReturn

from simulator.cli import main
from simulator.engine.cluster import Cluster


def _stop(*_: object) -> NoReturn:
    print(time.time(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    Cluster.run = _stop  # type: ignore[method-assign,assignment]
    main()
