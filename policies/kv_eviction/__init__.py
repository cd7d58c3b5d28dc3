"""KV eviction policies: which cached, unreferenced prefix block is given up first."""
