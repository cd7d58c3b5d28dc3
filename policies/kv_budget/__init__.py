"""KV budget policies: what an engine keeps of each request, one a file."""
