"""Words that all rooms share: threat models and their geometry, losses, modes, random streams, batches, files.

Nothing here knows a data set, a model or an attack, and nothing here imports another room. Start with `threat`, then
`norms`; `streams` explains why no result in poise depends on a batch size.
"""
