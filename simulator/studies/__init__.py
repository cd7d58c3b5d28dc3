"""Studies: many runs that answer one question.

`search` finds the best parallel plan; `compare` says which of several scenarios is better, and how sure that is.
"""
