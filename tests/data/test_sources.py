import io
import json
import os
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from fc7.engine.data import Source, open_source
from fc7.engine.errors import BadImage, SourceError

PICTURES = [jpeg(seed=seed) for seed in range(12)]


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def keys(source: Source) -> list[str]:
    return source.rows()["key"].to_pylist()


def labels(source: Source) -> list[int | None]:
    return source.rows()["label"].to_pylist()


def bad_status(source: Source, row: int) -> str:
    with pytest.raises(BadImage) as caught:
        source.read(row)
    assert "\n" not in str(caught.value)
    return caught.value.status


def make_tar(
    path: Path, members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT
) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# Folders


def test_folder_order_is_that_of_code_points(tmp_path: Path) -> None:
    names = ["b/9.jpg", "b/10.jpg", "a/z/1.png", "a-b/1.jpg", "a/1.JPG", "é/1.jpg", "B/1.webp"]
    write(tmp_path, {name: PICTURES[at] for at, name in enumerate(names)})
    source = open_source(tmp_path)
    assert keys(source) == sorted(names)
    assert source.label_names == ("B", "a", "a-b", "b", "é")
    assert labels(source) == [0, 2, 1, 1, 3, 3, 4]
    for row, key in enumerate(keys(source)):
        assert source.key(row) == key
        assert source.read(row) == PICTURES[names.index(key)]
        assert tuple(source.decode(source.read(row)).shape) == (3, 24, 32)
    assert source.kind == "folder"
    assert source.spec == str(tmp_path)


def test_folder_leaves_out_what_is_no_image(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"x", "notes.txt": b"x", ".b.jpg": b"x", ".git/c.jpg": b"x"})
    write(tmp_path, {"jpg": b"x", ".jpg": b"x", "d.jpg.tmp": b"x"})
    source = open_source(tmp_path)
    assert keys(source) == ["a.jpg"]
    assert labels(source) == [None]
    assert source.label_names is None


def test_images_beside_class_folders_have_no_label(tmp_path: Path) -> None:
    write(tmp_path, {"m.jpg": b"x", "cat/1.jpg": b"x", "dog/1.jpg": b"x", ".h/1.jpg": b"x"})
    (tmp_path / "bird").mkdir()  # a class without an image keeps its number
    source = open_source(tmp_path)
    assert source.label_names == ("bird", "cat", "dog")
    assert dict(zip(keys(source), labels(source), strict=True)) == {
        "cat/1.jpg": 1,
        "dog/1.jpg": 2,
        "m.jpg": None,
    }


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "data", {"a/1.jpg": b"1"})
    write(tmp_path / "elsewhere", {"2.jpg": b"2"})
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/self").symlink_to("self")
    (tmp_path / "data/a/gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "data/a/pipe.jpg")
    source = open_source(tmp_path / "data")
    assert keys(source) == ["a/1.jpg", "a/gone.jpg", "b/2.jpg"]
    assert source.read(2) == b"2"
    assert bad_status(source, 1) == "missing"


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_file_names_that_are_not_text(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(name, "wb") as file:
        file.write(b"here")
    write(tmp_path, {"ok.jpg": b"ok"})
    source = open_source(tmp_path)
    assert keys(source) == ["ok.jpg", "\\xff.jpg"]
    assert source.read(1) == b"here"


def test_folder_files_that_go_wrong_later(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"", "b.jpg": b"x", "c.jpg": b"x", "d.jpg": b"x"})
    source = open_source(tmp_path)
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "c.jpg").unlink()
    (tmp_path / "c.jpg").mkdir()
    (tmp_path / "d.jpg").chmod(0)
    assert bad_status(source, 0) == "empty"
    assert bad_status(source, 1) == "missing"
    assert bad_status(source, 2) == "unreadable"
    if os.geteuid() != 0:  # root may read everything
        assert bad_status(source, 3) == "unreadable"
    with pytest.raises(IndexError):
        source.read(4)
    with pytest.raises(IndexError):
        source.key(-1)


# Path lists


def test_path_list(tmp_path: Path) -> None:
    write(tmp_path, {"p/1.jpg": b"1", "p/2.jpg": b"2", "elsewhere/3.jpg": b"3"})
    lines = ["p/2.jpg\tdog", "", "p/1.jpg\tcat", str(tmp_path / "elsewhere/3.jpg"), "p/4.jpg\tcat "]
    (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode())
    source = open_source(str(tmp_path / "list.txt"))
    assert keys(source) == ["p/2.jpg", "p/1.jpg", lines[3], "p/4.jpg"]
    assert labels(source) == [1, 0, None, 0]
    assert source.label_names == ("cat", "dog")
    assert [source.read(row) for row in range(3)] == [b"2", b"1", b"3"]
    assert bad_status(source, 3) == "missing"


def test_path_list_with_numbers(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.jpg\t3\nb \xff.jpg\t-1\nc.jpg\t10\n")
    source = open_source(tmp_path / "list.txt")
    assert keys(source) == ["a.jpg", "b \\xff.jpg", "c.jpg"]
    assert labels(source) == [3, None, 10]
    assert source.label_names is None
    (tmp_path / "list.txt").write_bytes(b"a.jpg\t3000000000\n")
    with pytest.raises(SourceError, match="3000000000"):
        open_source(tmp_path / "list.txt")


def test_path_list_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"folder/{'x' * (at % 17)}{at}.jpg" for at in range(200)]
    (tmp_path / "list.txt").write_bytes("\r\n".join(names).encode())
    for block in (1, 7, 64):
        monkeypatch.setattr("fc7.engine.data.paths._BYTES_PER_CHUNK", block)
        assert keys(open_source(tmp_path / "list.txt")) == names


def test_a_long_path_list_is_columns_not_objects(tmp_path: Path) -> None:
    rows = 200_000
    with open(tmp_path / "list.txt", "w") as file:
        file.writelines(
            f"n{row % 1000:08d}/n{row % 1000:08d}_{row:08d}.JPEG\n" for row in range(rows)
        )
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    try:
        source = open_source(tmp_path / "list.txt")
        python_bytes, python_peak = tracemalloc.get_traced_memory()
        arrow_bytes = pa.total_allocated_bytes() - arrow
        assert source.key(rows - 1) == "n00000999/n00000999_00199999.JPEG"
    finally:
        tracemalloc.stop()
    # One str a row would be at least 82 bytes x 200,000 = 16 MB that stay.
    assert python_bytes < 1_000_000
    assert python_peak < 40_000_000
    # 33 bytes of text, 8 of offset, 4 of label, and up to as much again of slack.
    assert arrow_bytes < rows * 110
    assert source.rows(5, 7).nbytes < 1000


# Tars


def test_tar_with_three_shards(tmp_path: Path) -> None:
    for shard in range(3):
        members = []
        for at in range(4):
            row = 4 * shard + at
            members.append((f"x/{row:03d}.jpg", PICTURES[row]))
            if row % 3 == 0:
                members.append((f"x/{row:03d}.cls", f"{row}\n".encode()))
            elif row % 3 == 1:
                members.insert(0, (f"x/{row:03d}.json", json.dumps({"label": row}).encode()))
            else:
                members.append((f"x/{row:03d}.json", b'{"label": "no number"}'))
        make_tar(
            tmp_path / f"s-{shard}.tar",
            members,
            [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT][shard],
        )
    source = open_source(str(tmp_path / "s-*.tar"))
    assert source.kind == "tar"
    assert keys(source) == [f"s-{row // 4}.tar/x/{row:03d}.jpg" for row in range(12)]
    assert labels(source) == [None if row % 3 == 2 else row for row in range(12)]
    assert [source.read(row) for row in range(12)] == PICTURES
    one = open_source(tmp_path / "s-1.tar")
    assert keys(one) == [f"x/{row:03d}.jpg" for row in range(4, 8)]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_long_and_foreign_names(tmp_path: Path, form: int) -> None:
    names = ["a/" * 80 + "deep.jpg", "kätzchen.jpg", "plain.jpg", "n" * 120 + ".jpg", "last.jpg"]
    make_tar(tmp_path / "a.tar", [(name, name.encode()) for name in names], form)
    source = open_source(tmp_path / "a.tar")
    assert keys(source) == names
    assert [source.read(row).decode() for row in range(5)] == names


def test_tar_members_that_are_no_plain_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind, data in [
            ("d.jpg", tarfile.DIRTYPE, b""),
            ("a.jpg", tarfile.REGTYPE, b"A"),
            ("b.jpg", tarfile.SYMTYPE, b""),
            ("c.jpg", tarfile.LNKTYPE, b""),
            ("e.jpg", tarfile.REGTYPE, b""),
            ("._a.jpg", tarfile.REGTYPE, b"mac"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "a.jpg"
            tar.addfile(info, io.BytesIO(data))
    source = open_source(tmp_path / "a.tar")
    assert keys(source) == ["a.jpg", "b.jpg", "c.jpg", "e.jpg"]
    assert source.read(0) == b"A"
    assert [bad_status(source, row) for row in (1, 2, 3)] == ["unreadable", "unreadable", "empty"]


def test_tar_written_by_the_tar_command(tmp_path: Path) -> None:
    import subprocess

    write(tmp_path / "data", {f"c{at % 2}/{at}.jpg": PICTURES[at] for at in range(6)})
    subprocess.run(["tar", "-cf", tmp_path / "a.tar", "-C", tmp_path, "data"], check=True)
    source = open_source(tmp_path / "a.tar")
    expected = {f"data/c{at % 2}/{at}.jpg": PICTURES[at] for at in range(6)}
    assert {key: source.read(row) for row, key in enumerate(keys(source))} == expected


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_cut_anywhere_is_refused(tmp_path: Path, form: int) -> None:
    long = "l" * (90 if form == tarfile.USTAR_FORMAT else 150) + ".jpg"
    make_tar(tmp_path / "a.tar", [(long, b"1" * 700), ("b.jpg", b"2" * 300)], form)
    whole = (tmp_path / "a.tar").read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # the end mark is the blocks after it
    for cut in sorted({*range(1, end + 1, 100), *range(512, end + 1, 512)}):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"cut\.tar"):
            open_source(tmp_path / "cut.tar")
    (tmp_path / "cut.tar").write_bytes(whole[: end + 512])
    assert len(open_source(tmp_path / "cut.tar")) == 2


def test_a_tar_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [("a.jpg", b"1" * 700), ("b.jpg", b"2" * 700)])
    source = open_source(tmp_path / "a.tar")
    os.truncate(tmp_path / "a.tar", 2000)
    assert source.read(0) == b"1" * 700
    assert bad_status(source, 1) == "truncated"
    other = open_source_then_remove(tmp_path)
    assert bad_status(other, 0) == "missing"


def open_source_then_remove(folder: Path) -> Source:
    make_tar(folder / "b.tar", [("a.jpg", b"1")])
    source = open_source(folder / "b.tar")
    (folder / "b.tar").unlink()
    return source


# Parquet


def make_parquet(
    path: Path, rows: range, paths: bool = True, group: int = 2, metadata: bool = True
) -> None:
    images = [
        {"bytes": PICTURES[row % 12], "path": f"{row}.jpg" if paths else None} for row in rows
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {"image": pa.array(images, kind), "label": pa.array([row % 3 - 1 for row in rows])}
    )
    if metadata:
        features = {"label": {"names": ["zero", "one"], "_type": "ClassLabel"}}
        note = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": note})
    pq.write_table(table, path, row_group_size=group)


def test_parquet_with_files_and_row_groups(tmp_path: Path) -> None:
    make_parquet(tmp_path / "p-0.parquet", range(5))
    make_parquet(tmp_path / "p-1.parquet", range(5, 12), group=3)
    source = open_source(str(tmp_path / "p-*.parquet"))
    assert source.kind == "parquet"
    assert keys(source) == [f"{row}.jpg" for row in range(12)]
    assert labels(source) == [None, 0, 1] * 4
    assert source.label_names == ("zero", "one")
    for row in [*range(12), *reversed(range(12))]:
        assert source.read(row) == PICTURES[row]


def test_parquet_keys_where_paths_repeat_or_lack(tmp_path: Path) -> None:
    make_parquet(tmp_path / "a.parquet", range(3), paths=False)
    make_parquet(tmp_path / "b.parquet", range(2), paths=True)
    expected = ["a.parquet#0", "a.parquet#1", "a.parquet#2", "b.parquet#0", "b.parquet#1"]
    assert keys(open_source(str(tmp_path / "*.parquet"))) == expected
    make_parquet(tmp_path / "a.parquet", range(3), paths=True)
    assert keys(open_source(str(tmp_path / "*.parquet"))) == expected


def test_parquet_of_plain_bytes_with_text_labels_and_gaps(tmp_path: Path) -> None:
    table = pa.table(
        {"img": [PICTURES[0], None, b""], "label": ["dog", "cat", None], "extra": [1] * 3}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert source.label_names == ("cat", "dog")
    assert labels(source) == [1, 0, None]
    assert source.read(0) == PICTURES[0]
    assert bad_status(source, 1) == "missing"
    assert bad_status(source, 2) == "empty"


def test_parquet_without_labels(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": PICTURES}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert len(source) == 12
    assert labels(source) == [None] * 12
    assert source.label_names is None
    (tmp_path / "a.parquet").unlink()
    assert bad_status(source, 3) == "missing"


def test_parquet_label_names_from_a_column(tmp_path: Path) -> None:
    names = ["b", "a", "c", "a"]
    table = {"image": PICTURES[:4], "label": [1, 0, 2, 0], "label_name": names}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet").label_names == ("a", "b", "c")
    table["label_name"] = ["b", "a", "c", "not a"]  # one number, two names: no names
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet").label_names is None


def test_each_row_group_is_loaded_once_for_all_threads(tmp_path: Path) -> None:
    make_parquet(tmp_path / "a.parquet", range(60), group=10)
    source = open_source(tmp_path / "a.parquet")
    loaded: list[int] = []
    load = source._cache._load

    def counted(group: int) -> pa.ChunkedArray:
        loaded.append(group)
        return load(group)

    source._cache._load = counted
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.read, range(60)))
    assert found == [PICTURES[row % 12] for row in range(60)]
    assert sorted(loaded) == list(range(6))


def test_row_groups_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_parquet(tmp_path / "a.parquet", range(40), group=4)
    monkeypatch.setattr("fc7.engine.data.group_cache._KEPT_BYTES", 1)
    source = open_source(tmp_path / "a.parquet")
    for row in range(40):
        source.read(row)
        assert len(source._cache._groups) <= 2


# All kinds


@pytest.fixture(params=["folder", "paths", "tar", "parquet"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def build(kind: str, root: Path, names: list[str], data: list[bytes], marks: list[int]) -> Source:
    """The same rows in any of the kinds, with a label each."""
    root.mkdir()
    if kind == "folder":
        write(root, {f"{mark}/{n}": d for n, d, mark in zip(names, data, marks, strict=True)})
        return open_source(root)
    if kind == "paths":
        write(root, dict(zip(names, data, strict=True)))
        lines = [f"{name}\t{mark}\n" for name, mark in zip(names, marks, strict=True)]
        (root / "list.txt").write_text("".join(lines))
        return open_source(root / "list.txt")
    if kind == "tar":
        members = []
        for name, image, mark in zip(names, data, marks, strict=True):
            members += [(name, image), (name.replace(".jpg", ".cls"), str(mark).encode())]
        make_tar(root / "a.tar", members)
        return open_source(root / "a.tar")
    images = [{"bytes": image, "path": name} for name, image in zip(names, data, strict=True)]
    pq.write_table(pa.table({"image": images, "label": marks}), root / "a.parquet")
    return open_source(root / "a.parquet")


def test_digest(kind: str, tmp_path: Path) -> None:
    names, data, marks = ["a.jpg", "b.jpg", "c.jpg"], [b"x" * 3, b"y" * 4, b"z" * 5], [0, 1, 1]

    def digest(folder: str, names: list[str], data: list[bytes], marks: list[int]) -> str:
        return build(kind, tmp_path / folder, names, data, marks).digest()

    base = digest("base", names, data, marks)
    assert len(base) == 64
    assert digest("moved", names, data, marks) == base
    others = {
        digest("key", ["a.jpg", "b.jpg", "d.jpg"], data, marks),
        digest("label", names, data, [0, 1, 0]),
        digest("size", names, [b"x" * 3, b"y" * 4, b"z" * 6], marks),
        digest("fewer", names[:2], data[:2], marks[:2]),
    }
    assert len(others) == 4
    assert base not in others


def test_rows_slices(kind: str, tmp_path: Path) -> None:
    names = [f"{at}.jpg" for at in range(6)]
    source = build(kind, tmp_path / "d", names, PICTURES[:6], [0] * 6)
    table = source.rows()
    assert table.schema.equals(pa.schema([("key", pa.large_string()), ("label", pa.int32())]))
    assert source.rows(2, 4).equals(table.slice(2, 2))
    assert source.rows(4, 99).equals(table.slice(4))
    assert source.rows(3, 2).num_rows == 0
    whole, part = table["key"].chunk(0).buffers()[2], source.rows(2, 4)["key"].chunk(0).buffers()[2]
    assert whole.address == part.address  # a view


def test_reading_from_many_threads(kind: str, tmp_path: Path) -> None:
    data = [os.urandom(1000 + at) for at in range(40)]
    source = build(kind, tmp_path / "d", [f"{at:02d}.jpg" for at in range(40)], data, [0] * 40)
    start = threading.Barrier(8)

    def read_all(seed: int) -> bool:
        start.wait()
        order = np.random.default_rng(seed).permutation(40)
        return all(source.read(int(row)) == data[row] for row in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_all, range(8)))


def not_a_tar(folder: Path) -> str:
    write(folder, {"a.tar": b"hello" * 300})
    return str(folder / "a.tar")


def gzipped_tar(folder: Path) -> str:
    with tarfile.open(folder / "a.tar.gz", "w:gz"):
        pass
    return str(folder / "a.tar.gz")


def gzipped_tar_under_a_false_name(folder: Path) -> str:
    Path(gzipped_tar(folder)).rename(folder / "a.tar")
    return str(folder / "a.tar")


def tar_without_images(folder: Path) -> str:
    make_tar(folder / "a.tar", [("a.txt", b"x")])
    return str(folder / "a.tar")


def tar_with_a_wrong_label(folder: Path) -> str:
    make_tar(folder / "a.tar", [("a.jpg", b"x"), ("a.cls", b"cat")])
    return str(folder / "a.tar")


def parquet_without_images(folder: Path) -> str:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), folder / "a.parquet")
    return str(folder / "a.parquet")


def parquet_of_two_data_sets(folder: Path) -> str:
    pq.write_table(pa.table({"image": PICTURES}), folder / "a.parquet")
    make_parquet(folder / "b.parquet", range(2))
    return str(folder / "*.parquet")


def named(name: str, data: bytes) -> Callable[[Path], str]:
    return lambda folder: str(write(folder, {name: data}) / name)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda folder: "nowhere/at/all", "there is no 'nowhere/at/all'; pass a folder"),
        (lambda folder: str(folder), "no images in .* looked at all depths for"),
        (lambda folder: str(folder / "*.tar"), "no file matches"),
        (named("a.csv", b"x"), "do not know how to read"),
        (named("a.zip", b"x"), "compressed"),
        (named("list.txt", b"\n\n"), "names no file"),
        (named("a.parquet", b"x" * 99), "as Parquet"),
        (named("a.tar", b""), "cut short"),
        (not_a_tar, "not a tar archive"),
        (gzipped_tar, "unpack it"),
        (gzipped_tar_under_a_false_name, "unpack it"),
        (tar_without_images, "no images among the members"),
        (tar_with_a_wrong_label, "no whole number"),
        (parquet_without_images, r"it has text \(string\), n \(int64\)"),
        (parquet_of_two_data_sets, "other columns"),
        (lambda folder: "shapes:10", "shapes:N:SEED"),
        (lambda folder: "shapes:0:1", "shapes:N:SEED"),
        (lambda folder: "shapes:-1:x", "shapes:N:SEED"),
    ],
)
def test_wrong_specs(make: Callable[[Path], str], cause: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=cause) as caught:
        open_source(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_of_shards_says_what_to_pass(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [("a.jpg", b"x")])
    with pytest.raises(SourceError, match=r"pass '.*\*\.tar'"):
        open_source(tmp_path)


def test_max_pixels(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": PICTURES[0]})
    source = open_source(tmp_path, max_pixels=24 * 32 - 1)
    with pytest.raises(BadImage, match="767 allowed"):
        source.decode(source.read(0))
    with pytest.raises(ValueError, match="max_pixels is 0"):
        open_source(tmp_path, max_pixels=0)


def test_cifar10_as_parquet(request: pytest.FixtureRequest) -> None:
    pattern = request.config.getoption("--cifar")
    if pattern is None:
        pytest.skip("needs CIFAR-10's training images: pass --cifar GLOB")
    source = open_source(pattern)
    assert len(source) == 50_000
    assert np.bincount(np.array(labels(source))).tolist() == [5000] * 10
    assert tuple(source.decode(source.read(49_999)).shape) == (3, 32, 32)
