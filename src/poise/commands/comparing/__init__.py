"""What `poise compare` shows beside its figures, which are the evaluation's: images, found again by their ids.

Start with `images`, which opens what a profile was made on; `gallery` takes lost examples from there, `replaying` shows
the old model's adversarial images to the new one.
"""
