"""What a person or a program is shown of a comparison: in the terminal, in a pull request, as a page, as data, in CI.

It reads a `Comparison` and computes no figure of its own. Start with `rows`, the tables that all forms share, and
`sentences`; `terminal`, `markdown`, `page`, `record` and `junit` each give one form.
"""
