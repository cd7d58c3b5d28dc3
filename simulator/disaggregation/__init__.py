"""Prompts computed on some replicas, tokens generated on others, and KV sent from the one to the other."""
