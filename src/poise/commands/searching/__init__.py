"""What `poise tune` searches with.

Options that vary, what is best, and a memory that processes share; the search itself is the verb's. Start with `space`;
`goals` reads figures and bounds, `studies` keeps the trials through interruptions, `stopping` says which end early.
"""
