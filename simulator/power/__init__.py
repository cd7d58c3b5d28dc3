"""Power, energy and carbon of a run: what a step draws, caps that stretch it, and what it adds up to."""
