"""KV tiers: prefixes kept in host memory, on local flash and in a remote pool, and loaded from there."""
