"""The page of `poise demo`: one image, what a model or a mixture says of it, and what an attack makes of that.

What the page shows comes from the rooms: predictions from the models' own code, adversarial images from `attacks`,
radii from `evaluation.certificates`. Only `layout` and `serving` know gradio. Start with `exhibit`, which answers every
question that the page can ask; `uploads` reads what strangers send, `drawing` turns answers into markup.
"""
