"""What a verb would cost, before it begins: `--dry-run`.

A verb says what work lies before it; nothing here does any of it. Start with `estimate`, which a verb calls; `demand`
counts the passes that work takes, `passes` times one.
"""
