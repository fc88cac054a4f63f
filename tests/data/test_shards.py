"""Shards: what is written is read back, by everyone once, from any position; nothing of a patient and no pickle comes through."""

from __future__ import annotations

import io
import itertools
import json
import logging
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image, PngImagePlugin
from torch.utils.data import DataLoader, IterableDataset

from msmedcap.config import UserError
from msmedcap.data.scans import Window, open_scan, write_dicom
from msmedcap.data.sets import Case
from msmedcap.data.shards import Sample, check_shards, read_index, read_shards, write_shards

RNG = np.random.default_rng(0)


def _picture(path: Path, *, size: tuple[int, int] = (12, 16), **save: object) -> Path:
    Image.fromarray(RNG.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)
    return path


def _cases(folder: Path, count: int = 10) -> list[Case]:
    folder.mkdir(exist_ok=True)
    return [
        Case(
            f"id-{n}",
            _picture(folder / f"{n}.{'png' if n % 2 else 'jpg'}"),
            {"modality": "CT", "part": "chest"},
            f"Caption {n}, größer.",
            f"patient-{n // 2}",
            "made",
            "said " * (n % 3),
        )
        for n in range(count)
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_shards(_cases(tmp_path / "pictures"), tmp_path / "out", size=3, progress=False)
    return tmp_path / "out"


def _ids(samples: list[Sample]) -> list[str]:
    return [sample.id for sample in samples]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cases = _cases(tmp_path / "pictures")
    index = write_shards(cases, tmp_path / "out", size=3, progress=False)
    assert [shard.samples for shard in index.shards] == [3, 3, 3, 1]
    assert index.complete
    assert read_index(tmp_path / "out") == index
    samples = list(read_shards(tmp_path / "out"))
    for case, sample in zip(cases, samples, strict=True):
        assert (sample.id, sample.group, sample.source, sample.facts) == (case.id, case.group, case.source, case.facts)
        assert (sample.captions, sample.text.strip()) == ((case.caption,), case.text.strip())
        np.testing.assert_array_equal(open_scan(sample.image).values(), open_scan(case.image).values())
    assert check_shards(tmp_path / "out") == []


def test_the_package_itself_reads_them(written: Path) -> None:
    urls = [str(path) for path in sorted(written.glob("*.tar"))]
    rows = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [json.loads(row["json"])["id"] for row in rows] == [f"id-{n}" for n in range(10)]
    assert rows[0]["txt"].decode() == "Caption 0, größer."


def test_shards_of_the_package_are_read(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "web-%03d.tar"), maxcount=2, verbose=0) as writer:
        for n in range(5):
            image = _picture(tmp_path / "one.jpg").read_bytes()
            writer.write({"__key__": f"a{n}", "jpg": image, "txt": f"Text {n}.", "json": {"width": 16}})
    samples = list(read_shards(str(tmp_path / "web-{000..002}.tar")))
    assert [sample.captions for sample in samples] == [(f"Text {n}.",) for n in range(5)]
    assert samples[3].id == samples[3].group == "a3"
    assert samples[3].facts == {}


def test_no_metadata_travels(tmp_path: Path) -> None:
    secret = b"DOE^JANE"
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    note = PngImagePlugin.PngInfo()
    note.add_text("Patient", secret.decode())
    jpeg = _picture(tmp_path / "a.jpg", exif=exif, comment=secret)
    jpeg.write_bytes(jpeg.read_bytes() + secret)
    tiff = _picture(tmp_path / "c.tif", description=secret.decode())
    files = [jpeg, _picture(tmp_path / "b.png", pnginfo=note, exif=exif), tiff]
    assert all(secret in path.read_bytes() for path in files)
    cases = [Case(path.name, path, {}, "Words.", "g", "made") for path in files]
    write_shards(cases, tmp_path / "out", progress=False)
    assert secret not in (tmp_path / "out" / "shard-000000.tar").read_bytes()
    samples = list(read_shards(tmp_path / "out"))
    assert [open_scan(sample.image).kind for sample in samples] == ["JPEG", "PNG", "PNG"]
    for path, sample in zip(files, samples, strict=True):
        np.testing.assert_array_equal(open_scan(sample.image).values(), open_scan(path).values())


def test_a_progressive_jpeg_keeps_its_bytes_but_for_the_metadata(tmp_path: Path) -> None:
    path = _picture(tmp_path / "a.jpg", size=(70, 90), progressive=True, quality=90, comment=b"DOE^JANE")
    write_shards([Case("a", path, {}, "Words.", "g", "made")], tmp_path / "out", progress=False)
    image = next(read_shards(tmp_path / "out")).image
    assert image.startswith(b"\xff\xd8\xff")
    assert 0 < path.stat().st_size - len(image) < 60
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(image))), np.array(Image.open(path)))


def test_a_turned_picture_stays_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _picture(tmp_path / "a.jpg", exif=exif)
    write_shards([Case("a", path, {}, "Words.", "g", "made")], tmp_path / "out", progress=False)
    scan = open_scan(next(read_shards(tmp_path / "out")).image)
    assert (scan.height, scan.width) == (16, 12)
    np.testing.assert_array_equal(scan.picture(), open_scan(path).picture())


def test_a_deep_png_keeps_its_depth(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 4000, (9, 11), dtype=np.uint16)).save(tmp_path / "a.png")
    write_shards([Case("a", tmp_path / "a.png", {}, "Words.", "g", "made")], tmp_path / "out", progress=False)
    scan = open_scan(next(read_shards(tmp_path / "out")).image)
    assert scan.values().max() > 255


def test_a_dicom_becomes_a_picture_without_a_name(tmp_path: Path) -> None:
    values = RNG.normal(0, 300, (20, 24)).astype(np.float32)
    path = tmp_path / "scan.dcm"
    write_dicom(path, values, modality="CT", body_part="CHEST", spacing=(1, 1), window=Window(400, 40), intercept=-1024)
    case = Case("DOE^JANE/1", path, {"modality": "CT"}, "CT of the chest.", "DOE^JANE", "ward")
    write_shards([case], tmp_path / "out", progress=False)
    sample = next(read_shards(tmp_path / "out"))
    assert (sample.id, sample.group, open_scan(sample.image).kind) == ("case-0", "group-0", "PNG")
    assert b"DOE" not in (tmp_path / "out" / "shard-000000.tar").read_bytes()
    np.testing.assert_array_equal(open_scan(sample.image).picture(), open_scan(path).picture())


def test_anonymous_numbers_keep_groups_together(tmp_path: Path) -> None:
    write_shards(_cases(tmp_path / "pictures", 4), tmp_path / "out", anonymous=True, progress=False)
    samples = list(read_shards(tmp_path / "out"))
    assert [(s.id, s.group) for s in samples] == [(f"case-{n}", f"group-{n // 2}") for n in range(4)]
    assert b"patient-" not in (tmp_path / "out" / "shard-000000.tar").read_bytes()


def test_members_are_called_by_number(tmp_path: Path) -> None:
    case = Case("../../etc/x", _picture(tmp_path / "a.png"), {}, "Words.", "g", "made")
    write_shards([case], tmp_path / "out", progress=False)
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        assert sorted(tar.getnames()) == ["000000000.json", "000000000.png", "000000000.txt"]
        assert {(member.uname, member.mtime) for member in tar} == {("", 0)}


def test_bad_pictures_are_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = _cases(tmp_path / "pictures", 4)
    cases[1].image.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    cases[2].image.unlink()
    with caplog.at_level(logging.WARNING):
        index = write_shards(cases, tmp_path / "out", progress=False)
    assert (index.samples, index.skipped, index.complete) == (2, 2, True)
    assert "2 of 4 cases were skipped" in caplog.text
    assert _ids(list(read_shards(tmp_path / "out"))) == ["id-0", "id-3"]


def test_writing_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, out = _cases(tmp_path / "pictures"), tmp_path / "out"
    whole = write_shards(cases, tmp_path / "whole", size=3, progress=False)
    calls = 0

    class Dies(webdataset.TarWriter):  # type: ignore[misc]
        def write(self, obj: dict) -> int:
            nonlocal calls
            calls += 1
            if calls == 8:
                raise KeyboardInterrupt
            return int(super().write(obj))

    with monkeypatch.context() as patch:
        patch.setattr(webdataset, "TarWriter", Dies)
        with pytest.raises(KeyboardInterrupt):
            write_shards(cases, out, size=3, progress=False)
    assert [path.name for path in sorted(out.glob("*.tar"))] == ["shard-000000.tar", "shard-000001.tar"]
    assert not read_index(out).complete
    before = (out / "shard-000000.tar").stat().st_mtime_ns
    assert write_shards(cases, out, size=3, progress=False) == whole
    assert (out / "shard-000000.tar").stat().st_mtime_ns == before
    for shard in whole.shards:
        assert (out / shard.name).read_bytes() == (tmp_path / "whole" / shard.name).read_bytes()


def test_a_damaged_shard_is_written_again(tmp_path: Path) -> None:
    cases, out = _cases(tmp_path / "pictures"), tmp_path / "out"
    write_shards(cases, out, size=3, progress=False)
    path = out / "shard-000001.tar"
    good = path.read_bytes()
    path.write_bytes(good[:600] + b"!" + good[601:])
    (out / "shard-000002.tar").unlink()
    assert check_shards(out) == ["shard-000001.tar is damaged.", "shard-000002.tar is missing."]
    write_shards(cases, out, size=3, progress=False)
    assert path.read_bytes() == good
    assert check_shards(out) == []


def test_other_cases_do_not_mix(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="other cases"):
        write_shards(_cases(tmp_path / "pictures", 4), written, size=3, progress=False)
    stray = tmp_path / "stray"
    stray.mkdir()
    (stray / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(UserError, match="no index"):
        write_shards(_cases(tmp_path / "pictures", 4), stray, progress=False)


@pytest.mark.parametrize(("world", "shuffle"), [(1, 0), (2, 4), (3, 4), (4, 0), (7, 3)])
def test_processes_share_the_samples_without_overlap(written: Path, world: int, shuffle: int) -> None:
    parts = [_ids(list(read_shards(written, rank=r, world=world, shuffle=shuffle, seed=5))) for r in range(world)]
    assert sorted(itertools.chain(*parts)) == sorted(f"id-{n}" for n in range(10))


def test_the_order_is_the_seeds_and_the_epochs(written: Path) -> None:
    def order(**given: int) -> list[str]:
        return _ids(list(read_shards(written, shuffle=6, **given)))

    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(seed=1, epoch=2) != order(seed=1, epoch=3)
    assert order(seed=2, epoch=2) != order(seed=1, epoch=2)
    assert sorted(order(seed=1)) == sorted(_ids(list(read_shards(written))))


@pytest.mark.parametrize("start", [0, 1, 4, 9, 10, 12])
@pytest.mark.parametrize("shuffle", [0, 4])
def test_reading_goes_on_at_any_position(written: Path, start: int, shuffle: int) -> None:
    given = {"shuffle": shuffle, "seed": 3}
    assert list(read_shards(written, start=start, **given)) == list(read_shards(written, **given))[start:]


def test_positions_hold_where_samples_are_skipped(written: Path) -> None:
    path = written / "shard-000001.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        at = tar.getmember("000000004.jpg").offset_data
    path.write_bytes(data[: at + 40] + b"!" + data[at + 41 :])
    samples = list(read_shards(written, shuffle=4, seed=3))
    assert len(samples) == 9
    assert "id-4" not in _ids(samples)
    again = list(read_shards(written, shuffle=4, seed=3, start=samples[5].position + 1))
    assert again == samples[6:]


class _Stream(IterableDataset):  # type: ignore[type-arg]
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[str]:
        return (sample.id for sample in read_shards(self.folder, rank=1, world=2))


def test_the_workers_of_a_loader_share_their_process_part(written: Path) -> None:
    alone = list(DataLoader(_Stream(written), batch_size=None))
    assert sorted(DataLoader(_Stream(written), batch_size=None, num_workers=2)) == sorted(alone)
    assert len(alone) == 4


def test_a_cut_shard_loses_its_tail_only(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:1000])  # within the first picture
    bad: list[str] = []
    with caplog.at_level(logging.WARNING):
        ids = _ids(list(read_shards(written, on_bad=bad.append)))
    assert ids == [f"id-{n}" for n in range(10) if n not in (3, 4, 5)]
    assert any("cut short" in sentence for sentence in bad)
    assert f"{len(bad)} samples or members" in caplog.text
    (written / "shard-000002.tar").unlink()
    bad.clear()
    assert "id-9" in _ids(list(read_shards(written, on_bad=bad.append)))
    assert sum("hold 3 samples, 0" in sentence for sentence in bad) == 3


def _tar(path: Path, members: list[tuple[str, bytes]], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for info in extra:
            tar.addfile(info)
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


class _Pwn:
    def __reduce__(self) -> tuple:
        return (Path("pwned").touch, ())


def test_a_hostile_tar_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = _picture(tmp_path / "a.png").read_bytes()
    link, hard = tarfile.TarInfo("000.jpg"), tarfile.TarInfo("001.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "a.png"
    members = [("../up.png", image), ("../up.txt", b"x"), ("/abs.png", image), ("a\nb.png", image)]
    members += [("good.png", image), ("good.txt", b"Words.")]
    members += [(f"good.{kind}", pickle.dumps(_Pwn())) for kind in ("pyd", "pkl", "pth", "pickle", "npy", "__url__")]
    _tar(tmp_path / "bad.tar", members, link, hard)
    bad: list[str] = []
    samples = list(read_shards(tmp_path / "bad.tar", on_bad=bad.append))
    assert [(s.id, s.captions) for s in samples] == [("good", ("Words.",))]
    assert Counter(bad) == {"bad.tar holds a link or an odd name, which is never read.": 6}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "bad.tar"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"json": b"{" * 100000}, "damaged"),
        ({"json": b"[1]"}, "damaged"),
        ({"json": b'{"id": 3}'}, "not as it should be"),
        ({"json": b'{"captions": [["a"]]}'}, "not as it should be"),
        ({"json": b'{"captions": "abc"}'}, "not as it should be"),
        ({"json": b'{"facts": {"part": 3}}'}, "not as it should be"),
        ({"json": b'{"sha256": "00"}'}, "not the one that was written"),
        ({"json": b" " * (5 << 20)}, "too large"),
        ({"txt": b"\xff\xfe"}, "text is damaged"),
        ({"txt": b" "}, "no caption"),
        ({"png": b"MZ"}, "picture is damaged"),
        ({"png": None}, "no picture"),
    ],
)
def test_a_damaged_sample_is_named_and_skipped(tmp_path: Path, members: dict[str, bytes | None], reason: str) -> None:
    good: dict[str, bytes | None] = {"png": _picture(tmp_path / "a.png").read_bytes(), "txt": b"Words."}
    rows = [(f"0.{k}", v) for k, v in (good | members).items() if v] + [(f"1.{k}", v) for k, v in good.items() if v]
    bad: list[str] = []
    samples = list(read_shards(_tar(tmp_path / "a.tar", rows), on_bad=bad.append))
    assert _ids(samples) == ["1"]
    assert len(bad) == 1
    assert bad[0].startswith("a.tar, sample 0: ")
    assert reason in bad[0]


def test_a_compressed_tar_is_not_opened(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(_picture(tmp_path / "a.png"), "a.png")
    bad: list[str] = []
    assert list(read_shards(tmp_path / "a.tar", on_bad=bad.append)) == []
    assert len(bad) == 1


@pytest.mark.parametrize("pattern", ["nothing-{0..3}.tar", "pipe:touch pwned", "https://example.invalid/a.tar"])
def test_where_there_are_no_shards_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no shards"):
        read_shards(pattern)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", '{"shards": [{"name": "../x.tar"}]}', '{"shards": 3}', "{}"])
def test_a_damaged_index_is_one_sentence(written: Path, text: str) -> None:
    (written / "index.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        read_shards(written)


def test_an_index_names_no_file_elsewhere(written: Path) -> None:
    index = json.loads((written / "index.json").read_text())
    index["shards"][0]["name"] = "../shard-000000.tar"
    (written / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="damaged"):
        read_shards(written)


def test_nothing_to_write_is_said(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cases"):
        write_shards([], tmp_path / "new")
    with pytest.raises(UserError, match="at least one"):
        write_shards(_cases(tmp_path / "p", 1), tmp_path / "new", size=0)
    with pytest.raises(UserError, match="is a file"):
        write_shards(_cases(tmp_path / "p", 1), tmp_path / "p" / "0.jpg")
    with pytest.raises(UserError, match="no part 2 of 2"):
        read_shards(written, rank=2, world=2)
