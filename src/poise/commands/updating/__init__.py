"""What `poise update` chooses by.

Start with `regression`, which counts on validation images what of the old model is lost; `trials` chooses among several
trainings by that.
"""
