"""One module per kind of data address, each with `open_source(request) -> Splits`.

They find images, ids and labels and leave decoding, dividing and checking to `poise.data.pictures`. None of them may
know another. Start with `folder`.
"""
