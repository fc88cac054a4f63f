"""Downloads against a home on this machine: cut connections, changed and damaged files, hostile archives, every listed set."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import stat
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections import namedtuple
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from msmedcap.config import UserError
from msmedcap.data.download import SOURCES, RemoteFile, Source, archives, download, transfer
from msmedcap.data.download.archives import unpack
from msmedcap.data.download.masks_csv import write_masks_csv
from msmedcap.data.download.transfer import Missing, Response, fetch, web
from msmedcap.data.sets import READERS

BODY = bytes(range(256)) * 300


class Home:
    """Serves ``files`` (by host and path); it can cut connections, ignore ranges, answer with a status, change a file's tag."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: dict[str, list[int]] = {}  # bytes until the connection breaks, one number per request
        self.status: dict[str, int] = {}
        self.tags: dict[str, str] = {}
        self.ignore_ranges = False
        self.asked: list[tuple[str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def client(self, url: str, headers: Mapping[str, str]) -> Response:
        """The real client, sent here instead of to the host of ``url``."""
        there = urlsplit(url)
        query = f"?{there.query}" if there.query else ""
        return web(f"http://127.0.0.1:{self._server.server_port}/{there.netloc}{there.path}{query}", headers)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        home = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                name, wanted = unquote(self.path)[1:], self.headers.get("Range")
                home.asked.append((name, wanted))
                if name not in home.files or name in home.status:
                    return self.answer(home.status.get(name, 404), b"", {})
                body, tag = home.files[name], home.tags.get(name, '"one"')
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                if home.ignore_ranges or self.headers.get("If-Range", tag) != tag:
                    start = 0
                if start and start >= len(body):
                    return self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
                self.answer(206 if start else 200, body[start:], {"ETag": tag, **headers})

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                cuts = home.cuts.get(unquote(self.path)[1:], [])
                if cuts:
                    body = body[: cuts.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing; a test's output is its own."""

        return Handler


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    home = Home()
    home.files["a.org/x.bin"] = BODY
    yield home
    home.close()


def _file(digest: str = "", size: int = 0) -> RemoteFile:
    return RemoteFile("http://a.org/x.bin", "x.bin", size, digest)


def test_a_cut_connection_goes_on_at_the_byte(home: Home, tmp_path: Path) -> None:
    home.cuts["a.org/x.bin"] = [1000, 5000, 0, 0, 3000]
    seen: list[int] = []
    digest = hashlib.sha256(BODY).hexdigest()
    assert (
        fetch(_file(f"sha256:{digest}", len(BODY)), tmp_path / "x.bin", client=home.client, arrived=seen.append)
        == digest
    )
    assert (tmp_path / "x.bin").read_bytes() == BODY
    assert sum(seen) == len(BODY)
    ranges = [None, *(f"bytes={n}-" for n in (1000, 6000, 6000, 6000, 9000))]
    assert [wanted for _, wanted in home.asked] == ranges
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_call_goes_on_where_the_last_one_stopped(home: Home, tmp_path: Path) -> None:
    home.cuts["a.org/x.bin"] = [1000] + [0] * transfer.TRIES
    with pytest.raises(UserError, match="broke off at 1,000 bytes .* call again"):
        fetch(_file(), tmp_path / "x.bin", client=home.client)
    assert not (tmp_path / "x.bin").exists()
    home.asked.clear()
    home.cuts.clear()
    fetch(_file(), tmp_path / "x.bin", client=home.client)
    assert home.asked == [("a.org/x.bin", "bytes=1000-")]
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_the_halves_of_two_versions_are_not_joined(home: Home, tmp_path: Path) -> None:
    home.cuts["a.org/x.bin"] = [1000] + [0] * transfer.TRIES
    with pytest.raises(UserError):
        fetch(_file(), tmp_path / "x.bin", client=home.client)
    home.cuts.clear()
    home.files["a.org/x.bin"], home.tags["a.org/x.bin"] = BODY[::-1], '"two"'
    fetch(_file(), tmp_path / "x.bin", client=home.client)
    assert (tmp_path / "x.bin").read_bytes() == BODY[::-1]


def test_a_home_without_ranges_starts_over(home: Home, tmp_path: Path) -> None:
    home.cuts["a.org/x.bin"], home.ignore_ranges = [1000], True
    seen: list[int] = []
    fetch(_file(), tmp_path / "x.bin", client=home.client, arrived=seen.append)
    assert (tmp_path / "x.bin").read_bytes() == BODY
    assert sum(seen) == len(BODY)


@pytest.mark.parametrize("kept", [BODY, BODY + b"more"])
def test_what_is_whole_or_too_long_is_seen(home: Home, tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "x.bin.part").write_bytes(kept)
    fetch(_file(), tmp_path / "x.bin", client=home.client)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def _digests(body: bytes) -> dict[str, str]:
    return {
        "sha256": hashlib.sha256(body).hexdigest(),
        "md5": hashlib.md5(body).hexdigest(),
        "blob": hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest(),
    }


@pytest.mark.parametrize("kind", ["sha256", "md5", "blob"])
def test_a_wrong_hash_removes_the_file(home: Home, tmp_path: Path, kind: str) -> None:
    fetch(_file(f"{kind}:{_digests(BODY)[kind]}"), tmp_path / "good", client=home.client)
    with pytest.raises(UserError, match=f"its {kind} is not what was announced; it was removed"):
        fetch(_file(f"{kind}:{_digests(b'other')[kind]}"), tmp_path / "x.bin", client=home.client)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


@pytest.mark.parametrize(("size", "hashed"), [(len(BODY), True), (0, False)])
def test_a_file_that_is_there_is_not_fetched(home: Home, tmp_path: Path, size: int, hashed: bool) -> None:
    (tmp_path / "x.bin").write_bytes(BODY)
    digest = f"md5:{_digests(BODY)['md5']}" if hashed else ""
    fetch(_file(digest, size), tmp_path / "x.bin", client=home.client)
    assert home.asked == []


def test_a_damaged_file_that_is_there_is_fetched(home: Home, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(BODY[::-1])
    fetch(_file(f"md5:{_digests(BODY)['md5']}", len(BODY)), tmp_path / "x.bin", client=home.client)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_an_archive_put_there_by_hand_is_unpacked(home: Home, tmp_path: Path) -> None:
    (tmp_path / "Dataset_BUSI.zip").write_bytes(_packed({"Dataset_BUSI_with_GT/benign/benign (1).png": b"a"}))
    download("busi", tmp_path, client=home.client)
    assert home.asked == []
    assert _tree(tmp_path) == ["benign/benign (1).png"]


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (404, Missing, "is not there"),
        (403, UserError, "ask for access"),
        (418, UserError, "answers 418"),
        (503, UserError, "503"),
    ],
)
def test_what_a_home_refuses_is_one_sentence(
    home: Home, tmp_path: Path, status: int, error: type[UserError], sentence: str
) -> None:
    home.status["a.org/x.bin"] = status
    with pytest.raises(error, match=sentence):
        fetch(_file(), tmp_path / "x.bin", client=home.client)
    assert len(home.asked) == (transfer.TRIES if status == 503 else 1)


def test_nobody_at_home_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match="broke off at 0 bytes .*refused"):
        fetch(RemoteFile("http://127.0.0.1:9/x", "x"), tmp_path / "x", client=web)
    with pytest.raises(UserError, match="no http address"):
        fetch(RemoteFile("file:///etc/passwd", "x"), tmp_path / "x", client=web)


def test_a_redirect_never_leaves_https() -> None:
    handler = transfer._Redirects()
    request = urllib.request.Request("https://a.org/x")
    with pytest.raises(urllib.error.URLError, match="away from https"):
        handler.redirect_request(request, None, 302, "", {}, "http://a.org/x")
    assert handler.redirect_request(request, None, 302, "", {}, "https://b.org/x").full_url == "https://b.org/x"


Usage = namedtuple("Usage", "total used free")


def test_too_little_room_is_said_before(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 30_000_000_000))
    with pytest.raises(UserError, match=r"MS COCO captions 2014 needs 33\.9 GB more .* 30\.0 GB free"):
        download("coco2014", tmp_path / "coco", client=home.client)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000))
    with pytest.raises(UserError, match="x.bin needs 0.0 GB more"):  # a size that only the answer tells
        fetch(_file(), tmp_path / "x.bin", client=home.client)
    assert [name for name, _ in home.asked] == ["a.org/x.bin"]


def _zip(path: Path, members: Mapping[str, bytes], link: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
        if link:
            info = zipfile.ZipInfo("link.png")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            out.writestr(info, link)
    return path


def _tar(path: Path, members: Mapping[str, bytes], link: str = "", kind: bytes = tarfile.SYMTYPE) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = kind, link
            out.addfile(info)
    return path


@pytest.mark.parametrize("pack", [_zip, _tar])
@pytest.mark.parametrize(
    "name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:/evil.png", "a\nb.png"]
)
def test_an_archive_stays_in_its_folder(tmp_path: Path, pack: object, name: str) -> None:
    archive = pack(tmp_path / "a.archive", {"good.png": b"good", name: b"evil"})  # type: ignore[operator]
    with pytest.raises(UserError, match="would not stay in the folder"):
        unpack(archive, tmp_path / "out", place=lambda name: name)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.archive"]


@pytest.mark.parametrize("kind", ["zip", "symlink", "hard link"])
def test_an_archive_brings_no_links(tmp_path: Path, kind: str) -> None:
    members = {"good.png": b"good"}
    if kind == "zip":
        archive = _zip(tmp_path / "a.archive", members, "/etc/passwd")
    else:
        tar_kind = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
        archive = _tar(tmp_path / "a.archive", members, "good.png", tar_kind)
    with pytest.raises(UserError, match="holds a link"):
        unpack(archive, tmp_path / "out", place=lambda name: name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_a_bomb_is_not_unpacked(tmp_path: Path, pack: object, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.archive", {"a.png": bytes(3 << 20), "b.png": bytes(3 << 20)})  # type: ignore[operator]
    with pytest.raises(UserError, match="would unpack to more than"):
        unpack(archive, tmp_path / "out", place=lambda name: name, cap=4 << 20)
    monkeypatch.setattr(archives, "FREE_GROWTH", 0)
    with pytest.raises(UserError, match="would unpack to more than"):
        unpack(archive, tmp_path / "out", place=lambda name: name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_a_full_disk_stops_an_archive(tmp_path: Path, pack: object, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.archive", {"a.png": bytes(1 << 20)})  # type: ignore[operator]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000))
    with pytest.raises(UserError, match="a.archive needs"):
        unpack(archive, tmp_path / "out", place=lambda name: name)


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_a_damaged_archive_is_one_sentence(tmp_path: Path, pack: object) -> None:
    archive = pack(tmp_path / "a.archive", {"a.png": bytes(range(256)) * 40})  # type: ignore[operator]
    data = bytearray(archive.read_bytes())
    data[len(data) // 2 - 20] ^= 0xFF
    archive.write_bytes(data if pack is _zip else data[: len(data) // 2])
    with pytest.raises(UserError, match="a.archive is damaged"):
        unpack(archive, tmp_path / "out", place=lambda name: name)
    archive.write_bytes(b"<html>not here</html>")
    with pytest.raises(UserError, match="a.archive is damaged"):
        unpack(archive, tmp_path / "out", place=lambda name: name)


def _packed(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    return file.getvalue()


def _tree(folder: Path) -> list[str]:
    return sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")
    )


def _github(home: Home, name: str, files: Mapping[str, bytes]) -> None:
    tree = [
        {"path": p, "type": "blob", "mode": "100644", "size": len(d), "sha": _digests(d)["blob"]}
        for p, d in files.items()
    ]
    tree += [{"path": "X", "type": "tree", "mode": "040000", "sha": "0"}]
    home.files[f"api.github.com/repos/{name}/commits/HEAD"] = json.dumps({"sha": "c0ffee"}).encode()
    home.files[f"api.github.com/repos/{name}/git/trees/c0ffee?recursive=1"] = json.dumps({"tree": tree}).encode()
    home.files |= {f"raw.githubusercontent.com/{name}/c0ffee/{p}": d for p, d in files.items()}


def _zenodo(home: Home, record: str, files: Mapping[str, bytes]) -> None:
    rows = [{"key": k, "size": len(d), "checksum": f"md5:{_digests(d)['md5']}"} for k, d in files.items()]
    home.files[f"zenodo.org/api/records/{record}"] = json.dumps({"files": rows}).encode()
    home.files |= {f"zenodo.org/api/records/{record}/files/{k}/content": d for k, d in files.items()}


def test_coco_comes_from_its_home(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = "images.cocodataset.org"
    home.files = {
        f"{images}/annotations/annotations_trainval2014.zip": _packed(
            {"annotations/captions_train2014.json": b"{}", "annotations/instances_train2014.json": b"{}"}
        ),
        f"{images}/zips/val2014.zip": _packed({"val2014/a.jpg": b"a"}),
        f"{images}/zips/train2014.zip": _packed({"train2014/b.jpg": b"b"}),
    }
    source = SOURCES["coco2014"]
    files = [home.files[file.url.removeprefix("http://")] for file in source.files]
    small = [
        dataclasses.replace(file, bytes=len(data), digest=f"sha256:{_digests(data)['sha256']}")
        for file, data in zip(source.files, files, strict=True)
    ]
    monkeypatch.setitem(SOURCES, "coco2014", dataclasses.replace(source, files=tuple(small)))
    home.cuts[f"{images}/zips/val2014.zip"] = [20]
    assert download("coco2014", tmp_path, client=home.client) == tmp_path
    assert _tree(tmp_path) == ["annotations/captions_train2014.json", "train2014/b.jpg", "val2014/a.jpg"]
    home.asked.clear()
    download("coco2014", tmp_path, client=home.client)
    assert home.asked == []


def test_rocov2_comes_from_zenodo_with_its_md5(home: Home, tmp_path: Path) -> None:
    zipped = _packed({"train/ROCOv2_2023_train_000001.jpg": b"a"})
    _zenodo(home, "10821435", {"train_captions.csv": b"ID,Caption\n", "train_images.zip": zipped})
    download("rocov2", tmp_path, client=home.client)
    assert _tree(tmp_path) == ["train/ROCOv2_2023_train_000001.jpg", "train_captions.csv"]
    home.files["zenodo.org/api/records/10821435/files/train_captions.csv/content"] = b"ID,Captjon\n"
    (tmp_path / "train_captions.csv").unlink()
    with pytest.raises(UserError, match="md5 is not what was announced"):
        download("rocov2", tmp_path, client=home.client)
    assert _tree(tmp_path) == ["train/ROCOv2_2023_train_000001.jpg"]


def test_rocov2_comes_from_the_hub_with_its_sha256(home: Home, tmp_path: Path) -> None:
    name, data = "eltorio/ROCOv2-radiology", b"PAR1"
    rows = [
        {
            "rfilename": "data/train-00000-of-00001.parquet",
            "size": 4,
            "blobId": "0",
            "lfs": {"sha256": _digests(data)["sha256"]},
        },
        {"rfilename": "README.md", "size": 1, "blobId": _digests(b"#")["blob"]},
    ]
    home.files[f"huggingface.co/api/datasets/{name}?blobs=true"] = json.dumps(
        {"sha": "c0ffee", "siblings": rows}
    ).encode()
    home.files[f"huggingface.co/datasets/{name}/resolve/c0ffee/data/train-00000-of-00001.parquet"] = data
    download("rocov2-hub", tmp_path, client=home.client)
    assert _tree(tmp_path) == ["data/train-00000-of-00001.parquet"]


LINKS = (
    "ROCO_00020\twget -r ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/1e/ed/PMC3970251.tar.gz -P /path/to/Dir\tfirst.003.jpg\n"
    "ROCO_00027\twget -r ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/d9/4e/PMC2766744.tar.gz -P /path/to/Dir\tsecond-g005.jpg\n"
    "ROCO_00059\twget -r ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/2c/70/PMC3789931.tar.gz -P /path/to/Dir\tgone.jpg\n"
    "ROCO_00060\twget -r ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/2c/70/PMC1.tar.gz -P /path/to/Dir\t../../evil.jpg\n"
)


def test_roco_gets_its_pictures_article_by_article(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {"data/validation/radiology/captions.txt": b"ROCO_00020\tA scan.\n"}
    texts["data/validation/radiology/dlinks.txt"] = LINKS.encode()
    _github(home, "razorx89/roco-dataset", {**texts, "scripts/fetch.py": b"#"})
    cloud = "pmc-oa-opendata.s3.amazonaws.com"
    home.files |= {f"{cloud}/PMC3970251.1/first.003.jpg": b"one", f"{cloud}/PMC2766744.2/second-g005.jpg": b"two"}
    download("roco", tmp_path, client=home.client)
    images = "data/validation/radiology/images"
    pictures = [f"{images}/PMC2766744_second-g005.jpg", f"{images}/PMC3970251_first.003.jpg"]
    assert _tree(tmp_path) == sorted([*texts, *pictures])
    assert "1 of 3 pictures are no longer" in caplog.text
    home.asked.clear()
    with pytest.raises(UserError, match="None of the 1 pictures"):
        download("roco", tmp_path, client=home.client)
    assert {name.split("/")[1] for name, _ in home.asked if name.startswith(cloud)} == {"PMC3789931.1", "PMC3789931.2"}


def test_roco_stops_where_pubmed_central_does_not_answer(home: Home, tmp_path: Path) -> None:
    _github(home, "razorx89/roco-dataset", {"data/test/radiology/dlinks.txt": LINKS.encode()})
    name = "pmc-oa-opendata.s3.amazonaws.com/PMC3970251.1/first.003.jpg"
    home.files[name], home.status[name] = b"one", 403
    with pytest.raises(UserError, match="not open to everyone .* call again to go on"):
        download("roco", tmp_path, client=home.client)


def test_label_folders_come_under_the_names_of_their_reader(home: Home, tmp_path: Path) -> None:
    at = "X-Ray Image DataSet"
    files = {
        f"{at}/No_findings/1.png": b"1",
        f"{at}/Pneumonia/2.png": b"2",
        f"{at}/Covid-19/3 a.jpg": b"3",
        "README.md": b"#",
    }
    _github(home, "muhammedtalo/COVID-19", files)
    download("cxr_labels", tmp_path, client=home.client)
    assert _tree(tmp_path) == ["covid19/3 a.jpg", "no_findings/1.png", "pneumonia/2.png"]


def test_busi_comes_without_its_masks(home: Home, tmp_path: Path) -> None:
    names = [
        "benign/benign (1).png",
        "benign/benign (1)_mask.png",
        "benign/benign (1)_mask_1.png",
        "normal/normal (1).png",
    ]
    home.files["scholar.cu.edu.eg/Dataset_BUSI.zip"] = _packed({f"Dataset_BUSI_with_GT/{name}": b"a" for name in names})
    download("busi", tmp_path, client=home.client)
    assert _tree(tmp_path) == ["benign/benign (1).png", "normal/normal (1).png"]


def test_medpix_comes_without_its_outer_folder(home: Home, tmp_path: Path) -> None:
    zipped = _packed({"MedPix-2-0/images/a.png": b"a", "MedPix-2-0/splitted_dataset/descriptions_dev.jsonl": b"{}"})
    _zenodo(home, "12624810", {"MedPix-2-0.zip": zipped})
    download("medpix", tmp_path, client=home.client)
    assert _tree(tmp_path) == ["images/a.png", "splitted_dataset/descriptions_dev.jsonl"]


STRUCTURE = """#,Taxonomy,Class,Template Name,File Folder,Filename,Image,Tag,Mask,Resolution
1,,"COVID-19 Airways","Airways",,"a b.jpeg",images/0fc7.jpg,tags/0fc7_e.png,masks/0fc7_e.png,943x751
5,"Class:Left Lung","COVID-19 Left Lung","Left Lung",,"a b.jpeg",images/0fc7.jpg,tags/0fc7_l.png,masks/0fc7_l.png,943x751
6,,"COVID-19 Airways","Airways",,"lost.jpg",images/aa12.jpg,tags/aa12_H.png,masks/aa12_H.png,1800x1779
"""


@pytest.mark.parametrize("metadata", [{}, {"metadata.csv": b"filename,view,finding\na b.jpeg,PA,COVID-19\n"}])
def test_the_mask_set_gets_the_list_its_reader_wants(home: Home, tmp_path: Path, metadata: dict[str, bytes]) -> None:
    files = {
        "structure.csv": STRUCTURE.encode(),
        "images/a b.jpeg": b"a",
        "masks/0fc7_e.png": b"e",
        "masks/0fc7_l.png": b"l",
    }
    _github(
        home, "GeneralBlockchain/covid-19-chest-xray-segmentations-dataset", {**files, "tags/x.png": b"", **metadata}
    )
    download("cxr_seg", tmp_path, client=home.client)
    end = ",PA,COVID-19" if metadata else ",,"
    assert (tmp_path / "masks.csv").read_text().splitlines() == [
        "image,class,mask,source_filename,view,finding",
        f"a b.jpeg,Airways,0fc7_e.png,a b.jpeg{end}",
        f"a b.jpeg,Left Lung,0fc7_l.png,a b.jpeg{end}",
    ]
    (tmp_path / "structure.csv").write_text("a,b\n1,2\n")
    (tmp_path / "images" / "a b.jpeg").unlink()
    with pytest.raises(UserError, match="not the list of masks"):
        write_masks_csv(tmp_path)


def test_what_must_be_asked_for_is_said(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Fill in the form .*medicat .*download medicat --url LINK"):
        download("medicat", tmp_path / "m", client=home.client)
    assert home.asked == []
    assert not (tmp_path / "m").exists()


def test_the_link_that_was_sent_is_followed(home: Home, tmp_path: Path) -> None:
    packed = _tar(tmp_path / "release.tar.gz", {"release/figures/a.png": b"a", "release/s2_full_figures.jsonl": b"{}"})
    home.files["s3.example/release.tar.gz"] = packed.read_bytes()
    download("medicat", tmp_path / "m", url="https://s3.example/release.tar.gz", client=home.client)
    assert _tree(tmp_path / "m") == ["release/figures/a.png", "release/s2_full_figures.jsonl"]


def test_an_archive_without_the_data_is_kept_and_said(home: Home, tmp_path: Path) -> None:
    home.files["scholar.cu.edu.eg/Dataset_BUSI.zip"] = _packed({"readme.txt": b"moved"})
    with pytest.raises(UserError, match="holds nothing of"):
        download("busi", tmp_path, client=home.client)
    assert _tree(tmp_path) == ["Dataset_BUSI.zip"]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "answers 404"),
        (b"<html>", "no list of files"),
        (b"[]", "no list of files"),
        (b"{}", "does not know"),
        (b'{"files": []}', "no longer holds"),
        (b'{"files": [{"key": "../x.csv", "size": 1, "checksum": "md5:0"}]}', "would not stay"),
    ],
)
def test_a_home_that_lists_nothing_of_use_is_one_sentence(
    home: Home, tmp_path: Path, answer: bytes | None, sentence: str
) -> None:
    if answer is not None:
        home.files["zenodo.org/api/records/10821435"] = answer
    with pytest.raises(UserError, match=sentence):
        download("rocov2", tmp_path / "out", client=home.client)
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set 'imagenet'.*coco2014"):
        download("imagenet", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        download("busi", tmp_path / "file")


@pytest.mark.parametrize("source", SOURCES.values(), ids=str)
def test_every_source_says_where_it_lives(source: Source) -> None:
    assert source.home.startswith("https://")
    assert source.terms
    assert source.layout
    assert bool(source.files) + bool(source.listing) + bool(source.by_hand) == 1
    for file in source.files:
        assert urlsplit(file.url).scheme == "https" or (file.bytes and file.digest.startswith("sha256:"))
        assert not file.digest or len(file.digest) == len("sha256:") + 64
    if source.reader in ("medpix", "cxr_labels", "busi", "cxr_seg"):
        assert source.reader in READERS
