"""Studies: many runs that answer one question. `search` finds the best parallel plan."""
