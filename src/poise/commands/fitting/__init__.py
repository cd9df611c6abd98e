"""What the verbs that train have in common.

The loop itself is the training room's; here are its run folder, what is measured after an epoch, and what a person is
told of it. Start with `fit`; `validation` measures, `diagnosis` speaks.
"""
