"""Proofs: radii within which a classifier cannot be made to err, with what they assume and how sure they are.

It proves and never attacks; what is no proof does not come from here. Start with `certification`; `radii` is the
arithmetic, `sampling` and `confidence` bound a smoothed classifier, `capture`, `layers`, `spectral` and `lipschitz` a
network, and `certificate` is what a profile keeps.
"""
