"""The page as a browser would get it: whole, harmless, within its bytes, and true to the run."""

import base64
import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readers import HOSTILE, LABELS, ROWS, Page, picture, unpacked

from fc7.engine.data import open_source
from fc7.engine.features.workflow import ExtractOptions, extract
from fc7.engine.models import Network, load_model
from fc7.engine.report import write_report
from fc7.engine.report.write import LEAST_BYTES
from fc7.engine.store import Run, open_store
from fc7.engine.store.patches import read_patches

SECTIONS = [
    "filters",
    "maps",
    "patches",
    "guided",
    "importance",
    "occlusion",
    "gradients",
    "segmentation",
    "fool",
    "invert",
    "dream",
    "texture",
    "stylize",
    "neighbours",
    "projection",
    "speed",
    "bad-rows",
    "provenance",
]


def without_date(path: Path) -> bytes:
    return re.sub(rb"<time.*?</time>", b"", path.read_bytes())


def test_the_sections_tell_the_story_in_order(page: Page) -> None:
    assert [found["id"] for found in page.all("section")] == SECTIONS
    links = [found["href"] for found in page.all("a") if str(found["href"]).startswith("#")]
    assert links == ["#main", "#top", *(f"#{name}" for name in SECTIONS)]
    assert "Not shown" not in page.text
    assert len(page.ids) == len(set(page.ids))


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), attributes
        for name in ("src", "srcset", "poster", "data", "action", "formaction", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:"), attributes
        assert (attributes.get("href") or "#").startswith("#"), attributes
        # The policy below forbids them, and a browser would drop them in silence.
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")], attributes
    for style in page.styles:
        assert "url(" not in style
        assert "@import" not in style
    (script,) = [text for found, text in page.scripts if "type" not in found]
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|https?:", script)
    assert "innerHTML" not in script


def test_the_policy_admits_exactly_the_pages_own_style_and_script(page: Page) -> None:
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    content = str(policy["content"])
    assert content.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in content
    (script,) = [text for found, text in page.scripts if "type" not in found]
    for directive, text in (("script", script), ("style", page.styles[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive}-src 'sha256-{digest}'" in content


def test_hostile_names_are_shown_and_do_nothing(page: Page) -> None:
    assert [found for found, _ in page.scripts] == [
        {"type": "application/json", "id": "scatter-data"},
        {},
    ]
    assert not page.all("b", src="x")
    assert not page.all("img", src="x")
    assert not page.all("i")[4:]  # the four swatches of the legend, and none from a file's name
    for name in LABELS:
        assert name in page.text
    assert HOSTILE in page.scatter["keys"]
    assert f"{LABELS[1]}/empty <i>.png" in page.text


def test_every_picture_decodes_and_has_a_text(page: Page) -> None:
    images = page.all("img")
    assert len(images) > 100
    for attributes in images:
        assert picture(str(attributes["src"])).size
        assert attributes["alt"]


def test_filters_are_the_first_layers_weights(page: Page, network: Network) -> None:
    weights = network.model.conv1.weight.numpy()  # type: ignore[union-attr, operator]
    shown = page.all("img", class_="filter")
    assert len(shown) == len(weights)
    for attributes, filter_ in zip(shown, weights, strict=True):
        # Zero is 128 and 127 steps reach the largest weight; rounding loses half a step.
        found = (picture(str(attributes["src"])).astype(float) - 128) / 127
        expected = filter_.transpose(1, 2, 0) / np.abs(filter_).max()
        np.testing.assert_allclose(found, expected, atol=0.5 / 127 + 1e-6)


def test_patches_are_of_the_channels_that_vary_most(page: Page, run: Run) -> None:
    good = np.flatnonzero(run.good)
    values = np.maximum(run["conv1.max"][good].astype(np.float64), 0)
    best = np.argsort(-values.std(axis=0), kind="stable")[:3]
    text = re.sub(r"\s+", " ", page.text)
    places = [text.index(f"channel {channel}") for channel in best]
    assert places == sorted(places)
    first = page.all("img", class_="patch")[0]
    patches = read_patches(run, "conv1")
    row, value = patches.rows[best[0], 0], patches.values[best[0], 0]
    key = run.rows["key"][int(row)].as_py()
    assert str(first["title"]).startswith(f"{value:.3g}: {key}")


def test_coordinates_labels_and_neighbours_are_the_runs(page: Page, run: Run) -> None:
    data = page.scatter
    rows = unpacked(data["rows"], "<i4")
    good = np.flatnonzero(run.good)
    assert len(rows) == data["pictured"] == ROWS
    np.testing.assert_array_equal(np.sort(rows), good)
    table = run.rows
    assert data["keys"] == [table["key"][int(row)].as_py() for row in rows]
    expected = [table["label"][int(row)].as_py() for row in rows]
    np.testing.assert_array_equal(unpacked(data["labels"], "<i4"), expected)
    assert [entry[1] for entry in data["names"]] == sorted(LABELS)
    assert [(plot["layer"], plot["method"]) for plot in data["plots"]] == [
        ("conv5.max", "pca"),
        ("fc7", "pca"),
    ]
    for plot in data["plots"]:
        coordinates = run.job(f"project-{plot['layer']}-pca").result("coordinates")
        found = unpacked(plot["xy"], "<f4").reshape(-1, 2)
        np.testing.assert_array_equal(found, coordinates[rows, :2])
    near = unpacked(data["near"], "<i4").reshape(ROWS, data["nearest"])
    ids = run.job("neighbors-fc7").result("ids")[rows, :10]
    np.testing.assert_array_equal(rows[near], ids)
    assert "The first two of 3 axes are drawn." in page.text


def test_thumbnails_are_the_rows_own_images(page: Page, pictures: Path) -> None:
    data, keys = page.scatter, page.scatter["keys"]
    side, columns = data["side"], data["columns"]
    sheet = picture(data["sheets"][0])
    for place in range(ROWS):
        top, left = (place // columns) * side, (place % columns) * side
        found = sheet[top : top + side, left : left + side].astype(float)
        with Image.open(pictures / keys[place]) as image:
            square = image.crop((16, 0, 112, 96)).resize((side, side), Image.Resampling.BICUBIC)
        # WebP at quality 75 loses a few grey levels; another drawing differs by 40 and more.
        assert np.abs(found - np.asarray(square, dtype=float)).mean() < 12


def test_label_agreement_is_counted_over_all_rows(page: Page, run: Run) -> None:
    labels = run.rows["label"].to_numpy()
    text = re.sub(r"\s+", " ", page.text)
    for layer, name in (("fc7", "fc7"), ("pixels", "plain pixels")):
        ids = run.job(f"neighbors-{layer}").result("ids")
        same = [
            labels[other] == labels[row]
            for row in np.flatnonzero(run.good)
            for other in ids[row, :10]
        ]
        assert f"{np.mean(same) * 100:.0f} %of the 10 nearest in {name} share the label" in text
    good = labels[run.good]
    pairs = [a == b for a, b in itertools.combinations(good.tolist(), 2)]
    assert f"{np.mean(pairs) * 100:.0f} %would by chance" in text


def test_bad_rows_are_listed_with_what_was_found(page: Page, run: Run) -> None:
    assert "3 of 43 rows have no usable image (1 empty, 1 not-an-image, 1 truncated)" in page.text
    for row in np.flatnonzero(~run.good).tolist():
        assert run.rows["key"][row].as_py() in page.text
        assert run.rows["detail"][row].as_py() in page.text


def test_the_same_run_makes_the_same_page(
    report: Path, run: Run, network: Network, tmp_path: Path
) -> None:
    again = write_report(
        open_store(run.folder), tmp_path / "again.html", network, channels_per_layer=3, queries=3
    )
    assert without_date(again) == without_date(report)
    other = write_report(
        run, tmp_path / "other.html", network, channels_per_layer=3, queries=3, seed=1
    )
    assert without_date(other) != without_date(report)


def test_a_small_limit_holds_and_the_page_says_so(
    report: Path, run: Run, network: Network, tmp_path: Path
) -> None:
    assert report.stat().st_size > LEAST_BYTES  # so that something has to give
    path = write_report(run, tmp_path / "small.html", network, max_bytes=LEAST_BYTES)
    assert path.stat().st_size <= LEAST_BYTES
    small = Page(path.read_text(encoding="utf-8"))
    shown = [found["id"] for found in small.all("section")]
    assert shown[-1] == "not-shown"
    assert [name for name in SECTIONS if name in shown] == shown[:-1]
    assert "the file's size limit leaves no room for it" in small.text
    assert len(unpacked(small.scatter["rows"], "<i4")) == ROWS
    for attributes in small.all("img"):
        assert picture(str(attributes["src"])).size


def test_fewer_thumbnails_than_points_are_announced(
    run: Run, network: Network, tmp_path: Path
) -> None:
    path = write_report(
        run, tmp_path / "r.html", network, scatter_rows=7, channels_per_layer=1, queries=1
    )
    few = Page(path.read_text(encoding="utf-8"))
    data = few.scatter
    assert data["pictured"] == len(data["keys"]) == 7
    near = unpacked(data["near"], "<i4").reshape(7, -1)
    rows = unpacked(data["rows"], "<i4")
    ids = run.job("neighbors-fc7").result("ids")[rows[:7], :10]
    # A neighbour outside the seven cannot be pointed at, one inside must be.
    np.testing.assert_array_equal(near >= 0, np.isin(ids, rows[:7]))
    np.testing.assert_array_equal(rows[near[near >= 0]], ids[near >= 0])
    assert "7 of them, drawn at random, can be pointed at" in few.text


def test_without_images_network_or_labels_the_rest_remains(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "run")
    meta = json.loads((copy / "run.json").read_text())
    meta["source"]["spec"] = str(tmp_path / "nowhere <b>")
    (copy / "run.json").write_text(json.dumps(meta))
    first = next(name for name, job in run.jobs().items() if "network" in job.fingerprint)
    for name in (first, "extract"):
        job = json.loads((copy / f"jobs/{name}/job.json").read_text())
        job["fingerprint"]["network"]["digest"] = "0" * 64
        (copy / f"jobs/{name}/job.json").write_text(json.dumps(job))
        # Commits carry the fingerprint's digest: they move with it, as if made by that network.
        digest = open_store(copy).job(name).digest
        for record in (copy / f"jobs/{name}/commits").glob("*.json"):
            entry = json.loads(record.read_text())
            record.write_text(json.dumps({**entry, "fingerprint": digest}))
    path = write_report(open_store(copy))
    assert path == copy / "report.html"
    bare = Page(path.read_text(encoding="utf-8"))
    # Filters, maps and patches need the network, maps over pixels the images.
    lacking = {"filters", "maps", "patches", "guided", "occlusion", "gradients", "segmentation"}
    lacking |= {"fool", "invert", "dream", "texture", "stylize"}
    kept = [name for name in SECTIONS if name not in lacking]
    assert [found["id"] for found in bare.all("section")] == [*kept, "not-shown"]
    assert len(bare.all("dt")) >= len(lacking)
    assert "network" in bare.text
    # Neighbours and thumbnails fall back on the 32 x 32 pixels that the run itself keeps.
    (first, *_) = bare.all("figure", class_="neighbour")
    assert first
    assert len(bare.scatter["sheets"]) == 1
    assert not bare.all("img", class_="patch")


def test_a_run_of_one_vector_layer_says_what_it_lacks(tmp_path: Path) -> None:
    network = load_model("tiny-cifar10", weights="random", device="cpu")
    options = ExtractOptions(top_k=0, threads=1)
    made = extract(open_source("shapes:6:0"), network, ["fc7"], tmp_path / "run", options)
    text = Page(write_report(made, network=network).read_text(encoding="utf-8")).text
    assert "the run holds no layer with positions" in text
    assert "the run holds no maximal patches" in text
    assert "the run holds no occlusion maps; fc7 occlude makes them" in text
    assert "the run holds no neighbours" in text
    assert "the run holds no projection" in text
    assert "All 6 rows could be used." in text


def test_another_networks_filters_are_not_shown_as_the_runs(run: Run, tmp_path: Path) -> None:
    stranger = load_model("tiny-shapes", weights="random", seed=4, device="cpu")
    path = write_report(run, tmp_path / "r.html", stranger, queries=1)
    text = Page(path.read_text(encoding="utf-8")).text
    first = next(name for name, job in run.jobs().items() if "network" in job.fingerprint)
    assert f"tiny-shapes has other weights than {first} was made with" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": -1}, "queries is -1"),
        ({"scatter_rows": -5}, "scatter_rows is -5"),
        ({"max_bytes": 1000}, "max_bytes is 1,000; a report needs at least 400,000"),
    ],
)
def test_wrong_numbers_are_named(run: Run, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_report(run, **options)  # type: ignore[arg-type]
