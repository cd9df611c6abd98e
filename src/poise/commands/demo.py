"""Show a model in the browser: predictions, sliders of alpha and epsilon, an attack, a certified radius."""

from __future__ import annotations

from importlib.util import find_spec

from poise.commands.opening import Source, check_split, open_whole, placed
from poise.commands.page.exhibit import Exhibit
from poise.commands.page.serving import Served, serve
from poise.commands.page.uploads import Limits
from poise.commands.run import address_of, recipe_of, threat_of
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.data import ImageSet, Split, sample
from poise.evaluation import Method
from poise.evaluation.certificates.certification import Certification, default_method
from poise.evaluation.certificates.sampling import Sampling
from poise.models import Classifier

_LOCAL = ("127.0.0.1", "localhost", "::1")


def demo(
    model: str,
    data: str | None = None,
    *,
    weights: str | None = None,
    threat: Threat | None = None,
    split: Split = "test",
    images: int = 24,
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    steps: int = 50,
    timeout: float = 10.0,
    certify: bool = True,
    method: Method | None = None,
    samples: int = 1000,
    megabytes: float = 10.0,
    megapixels: float = 25.0,
    host: str = "127.0.0.1",
    port: int = 7860,
    wait: bool = True,
    seed: int = 0,
) -> Served:
    """Serve a page on which a model, or a mixture beside its branches, can be tried and attacked.

    An image is picked from the data or dropped on the page. Predictions stand side by side; moving alpha mixes anew
    what the branches have said, and runs neither. An attack searches within the chosen epsilon through every output of
    the model, and stops when its time is up. The certified radius of the prediction is a mark on the slider of epsilon.
    The page fetches nothing from elsewhere, and no upload outlives it.

    Args:
        model: a run's folder, or the address of a network: run:FOLDER, timm:NAME, python:pkg.module:factory.
        data: address of the images to pick from; by default those the run was trained on.
        weights: a local weights file; by default what the address itself carries.
        threat: norm of attacks and radii; the slider goes to twice its epsilon. By default the run's.
        split: which images.
        images: show this many of them to pick from.
        image_size: resize the shorter side to this and crop the centre; by default as the run.
        limit: use this many images of each split, the same ones every time; by default as the run.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        steps: gradient steps of the attack through each output.
        timeout: seconds after which an attack stops.
        certify: compute certified radii.
        method: how: smoothing, lipschitz or local; by default smoothing for a smoothed classifier, else local.
        samples: noisy copies that a radius by smoothing is made from.
        megabytes: refuse larger files.
        megapixels: refuse larger images, by their header, before they are decoded.
        host: name or address to listen on; 0.0.0.0 opens the page to everybody who reaches this machine.
        port: to listen on; 0 for any that is free.
        wait: serve until Ctrl-C; otherwise return at once, and serve until the page is closed or the process ends.
        seed: decides the attack's random starts.

    Returns:
        The page's address, with the means to close it.

    Raises:
        Misuse: for anything that cannot be done, before any work.
    """
    if find_spec("gradio") is None:
        raise Misuse("poise demo needs gradio; install it with: pip install 'poise[demo]'")
    check_split(split)
    if images < 1:
        raise Misuse(f"at least 1 image must be there to pick from; got {images}")
    limits, sampling = Limits(megabytes=megabytes, megapixels=megapixels), Sampling(samples=samples, seed=seed)
    Certification(method=method or "local")
    model = address_of(model)
    recipe = recipe_of(model)
    source = Source.of(recipe, data, image_size=image_size, limit=limit, skip_unreadable=skip_unreadable)
    whole: ImageSet = getattr(source.open(), split)
    classifier = placed(open_whole(model, whole, weights=weights, seed=seed))
    threat = threat or Threat(**threat_of(model))
    exhibit = Exhibit(
        classifier=classifier,
        images=sample(whole, images),
        threat=threat,
        certification=_certification(classifier, threat, method, sampling) if certify else None,
        limits=limits,
        steps=steps,
        timeout=timeout,
        seed=seed,
    )
    served = serve(exhibit, f"poise demo: {model.removeprefix('run:')}", host, port)
    if host not in _LOCAL:
        say(f"everybody who reaches {host} can use the page, and attacks keep this machine busy")
    say(f"{served.address} shows {model}" + ("; Ctrl-C ends it" if wait else ""))
    if wait:
        served.wait()
    return served


def _certification(
    classifier: Classifier, threat: Threat, method: Method | None, sampling: Sampling
) -> Certification | None:
    """How radii are proven; None, with a remark, for a classifier of which nothing can be proven."""
    try:
        chosen = method or default_method(classifier)
    except Misuse as error:
        if method is not None:
            raise
        say(f"no certified radii: {error}")
        return None
    return Certification(method=chosen, norm=threat.norm, sampling=sampling)
