"""What `poise mix` chooses from and by.

How networks are mixed is the models' matter. Start with `mixtures`, the candidates; `sweep` measures them with as few
passes as that takes.
"""
