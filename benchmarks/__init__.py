"""Measured claims, one script each, with the peer beside ours in the same run; results are kept in `results`."""
