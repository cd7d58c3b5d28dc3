"""What there is to choose from, read from the code: scenario keys, policies, commands, models, GPUs, nodes, engines.

Docstrings, the schema and the command line are the source of truth: the pages of the documentation's reference and the
lists that the command line prints are made of them, and no text of either is kept anywhere.
"""
