"""Adversarial examples: what the network falls for, and how little it takes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fc7.engine.data.tiles import magnified
from fc7.engine.models.targets import class_name
from fc7.engine.report.answers import seen_of
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.pictures import image, png, webp
from fc7.engine.report.section import Detail, Section, missing, too_small
from fc7.engine.report.speed import table
from fc7.engine.report.subject import Subject
from fc7.engine.synthesis.stored_fool import StoredFool, stored_fools
from fc7.engine.words import number, plural, share

_ANCHOR, _TITLE = "fool", "What it falls for"
_FEW_PIXELS, _CLASSES = 64, 12
# Of small pictures every pixel tells; of larger ones lossless files would fill the page.
_LOSSLESS_PIXELS = 96


def fool(subject: Subject, detail: Detail) -> Section:
    """Show image, adversarial example and difference of chosen rows, for every finished job."""
    found = [one for one in stored_fools(subject.run) if one.job.is_complete]
    if not found:
        why = "the run holds no adversarial examples; fc7 fool makes them"
        return missing(_ANCHOR, _TITLE, why)
    if subject.source is None:
        return missing(_ANCHOR, _TITLE, subject.why_no_images)
    if not detail.examples:
        return too_small(_ANCHOR, _TITLE)
    lede = (
        "The same images to people, and others to the network (Szegedy et al., 2014): each was "
        "changed along the gradient until the answer was another. The image, the adversarial "
        "example, and their difference, as many times as large as is said below it."
    )
    return Section(_ANCHOR, _TITLE, lede, join(_job(subject, one, detail) for one in found))


def how(subject: Subject, stored: StoredFool) -> str:
    """Say how the examples were made."""
    asked = stored.about
    words = {
        "random": "towards a class at random",
        "least-likely": "towards the least likely class",
        "next": "towards the next class",
        "untargeted": "away from the predicted class",
    }
    target = str(asked["target"])
    towards = words.get(target) or f"towards {class_name(subject.network, int(target))}"
    steps = plural(int(asked["steps"]), "gradient evaluation")
    method = {
        "margin": f"up the margin by steps of {number(asked.get('step', 0))}, at most {steps}",
        "ddn": f"direction and norm apart (DDN, Rony et al., 2019), {steps}",
        "fgsm": "one signed gradient (FGSM, Goodfellow et al., 2015)",
        "pgd": f"signed gradients (PGD, Madry et al., 2018), at most {steps}",
    }[str(asked["method"])]
    if "epsilon" in asked:
        method += f", no pixel by more than {number(asked['epsilon'])}"
    return f"{towards}, {method}"


def _job(subject: Subject, stored: StoredFool, detail: Detail) -> Markup:
    rows = np.flatnonzero(subject.good)
    heading = element("h3", stored.name, " ", element("small", how(subject, stored)))
    found = stored.outcome()
    says = (
        f"{share(found.success)} of {plural(found.rows, 'attack')} fool the network, "
        f"{share(found.success_8bit)} after rounding to 8 bits."
    )
    if found.success > 0:
        says += (
            f" Those change an image by {number(found.l2)} in the median (L2, of pixels in "
            f"[0, 1]), no pixel by more than {number(found.linf)}; "
            f"{plural(round(found.evaluations), 'gradient evaluation')} in the median."
        )
    groups = [
        element(
            "div",
            element("h4", title),
            element("div", *cards, class_="occlusions"),
            class_="group",
        )
        for title, chosen in _shown(stored, rows, detail.examples)
        if (cards := list(_cards(subject, stored, chosen)))
    ]
    note = element("p", says, class_="note")
    return join([heading, note, _by_class(subject, stored, rows), *groups])


def _by_class(subject: Subject, stored: StoredFool, rows: NDArray[np.int64]) -> Markup | None:
    """Return a table of the classes that are hardest to leave, by the median change."""
    predicted, l2 = stored.column("predicted")[rows], stored.column("l2")[rows]
    success = stored.column("success")[rows].astype(bool)
    found = []
    for number_of in np.unique(predicted).tolist():
        of = predicted == number_of
        fooled = of & success
        median = float(np.median(l2[fooled])) if fooled.any() else float("inf")
        found.append((median, number_of, int(of.sum()), float(success[of].mean())))
    if len(found) < 2:
        return None
    found.sort(key=lambda one: (-one[0], one[1]))
    lines = [
        element(
            "tr",
            element("th", class_name(subject.network, number_of), scope="row"),
            element("td", f"{count:,}"),
            element("td", share(reached)),
            element("td", number(median) if median < float("inf") else "-"),
        )
        for median, number_of, count, reached in found[:_CLASSES]
    ]
    heading = "class" if len(found) <= _CLASSES else f"class, the {_CLASSES} hardest to leave"
    return table((heading, "images", "fooled", "median L2"), lines)


def _shown(
    stored: StoredFool, rows: NDArray[np.int64], count: int
) -> Iterator[tuple[str, list[int]]]:
    """Yield headings with the rows below them, none of which comes twice."""
    success = stored.column("success")[rows].astype(bool)
    order = np.argsort(stored.column("l2")[rows], kind="stable")
    fooled = rows[order[success[order]]].tolist()
    least = fooled[:count]
    most = fooled[max(count, len(fooled) - count) :][::-1]
    for title, chosen in (
        ("Smallest changes", least),
        ("Largest changes", most),
        ("Not fooled", rows[~success][:count].tolist()),
    ):
        if chosen:
            yield title, chosen


def _cards(subject: Subject, stored: StoredFool, rows: list[int]) -> Iterator[Markup]:
    keys = subject.keys(rows)
    for row in rows:
        seen = seen_of(subject, stored.job, row)
        if seen is not None:
            yield _card(subject, stored, row, keys[row], seen)


def _card(
    subject: Subject, stored: StoredFool, row: int, key: str, seen: NDArray[np.uint8]
) -> Markup:
    clean = np.ascontiguousarray(seen.transpose(2, 0, 1))
    adversarial = stored.adversarial(row, clean)
    difference, factor = magnified(adversarial - clean.astype(np.float32) / 255)
    after = np.round(adversarial * 255).astype(np.uint8).transpose(1, 2, 0)
    before, became, target = (
        class_name(subject.network, int(stored.value(name, row)))
        for name in ("predicted", "became", "target")
    )
    few = max(seen.shape[:2])
    crisp, encode = (
        "crisp" if few <= _FEW_PIXELS else None,
        png if few <= _LOSSLESS_PIXELS else webp,
    )
    pictures = (
        image(encode(seen), f"{key}: {before}", class_=crisp),
        image(encode(np.ascontiguousarray(after)), f"changed: {became}", class_=crisp),
        image(encode(difference), f"the difference, {number(factor)} times", class_=crisp),
    )
    says = [f"L2 {number(stored.value('l2', row))}", f"difference {number(factor)} times as large"]
    success = bool(stored.value("success", row))
    if not success and not stored.untargeted:
        says.append(f"was to become {target}")
    if success and not stored.value("success_8bit", row):
        says.append("not after rounding to 8 bits")
    caption = element(
        "figcaption",
        element(
            "div",
            element("b", before),
            " ",
            element("span", share(stored.value("probability", row)), class_="value"),
            " → ",
            element("b", became),
            " ",
            element("span", share(stored.value("certainty", row)), class_="value"),
            class_="answer",
        ),
        element("div", "; ".join(says), class_="quiet"),
        element("div", key, class_="key", title=f"{key} (row {row})"),
    )
    return element("figure", element("div", *pictures, class_="trio"), caption, class_="occluded")
