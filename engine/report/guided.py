"""Guided gradients of maximal patches: what in each patch its channel answers to."""

import numpy as np

from fc7.engine.attribution.guided_patches import guided_patches_job
from fc7.engine.report.guided_sheet import blocks_of
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.subject import LayerView, Subject
from fc7.engine.store import Job

_ANCHOR, _TITLE = "guided", "Guided gradients of patches"


def guided(subject: Subject, detail: Detail) -> Section:
    """Show channels' maximal patches beside their guided gradients."""
    jobs = subject.run.jobs()
    named = ((layer, guided_patches_job(layer.name)) for layer in subject.layers)
    found = [
        (layer, jobs[name]) for layer, name in named if name in jobs and jobs[name].is_complete
    ]
    if not found:
        why = "the run holds none; fc7 guided RUN --layer LAYER makes them of maximal patches"
        return missing(_ANCHOR, _TITLE, why)
    if subject.network is None or subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_network or subject.why_no_images)
    if not detail.channels:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "Left the images that excite a channel most, cut to what its strongest neuron sees; right "
        "the guided gradient of that neuron: what it answers to in them (Springenberg et al., "
        "2015). Each gradient has a scale of its own, and grey is zero."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_layer(subject, *one, detail) for one in found))


def _layer(subject: Subject, view: LayerView, job: Job, detail: Detail) -> Markup:
    assert subject.network is not None
    assert subject.source is not None
    kind = "channel" if view.grid else "unit"
    shown = range(min(detail.channels, len(job.result("channels"))))
    cards = []
    for channel, patches, gradients in blocks_of(
        subject.run, subject.source, subject.network, view.name, shown, detail.tile
    ):
        squares = (
            element(
                "div",
                join(
                    image(webp(np.ascontiguousarray(tile)), f"{what} {rank}", class_="patch")
                    for rank, tile in enumerate(tiles, 1)
                ),
                class_="nine",
            )
            for what, tiles in (("Patch", patches), ("Guided gradient of patch", gradients))
        )
        caption = element("figcaption", element("b", f"{kind} {channel}"))
        cards.append(
            element("figure", element("div", *squares, class_="pair"), caption, class_="channel")
        )
    return element(
        "div",
        element("h3", view.name, " ", element("small", f"rule: {job.fingerprint['rule']}")),
        element("div", *cards, class_="pairs"),
        class_="layer",
    )
