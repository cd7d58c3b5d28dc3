"""Batching policies: which prompt chunks and which decodes make up the next engine step."""
