"""Soundness checks: what can make a robustness figure mislead, and whether it shows here.

They know models and profiles, and the attacks that try them once more; they decide nothing about an example and print
nothing. Start with `check` for the promise and `catalogue` for the list and the way in; `finding` is what comes out,
and knows none of the others, so that profiles can hold it.
"""
