"""Where each public data set has its home, what it may be used for, and what its folder looks like once it is here.

Sizes and hashes stand here only where they are known: COCO's are those that the ``tensorflow_datasets`` checksum list records
for its addresses; Zenodo, the hub and GitHub publish theirs beside each file, and they are asked for when a download starts.
"""

from __future__ import annotations

from dataclasses import dataclass

COCO = "http://images.cocodataset.org"


@dataclass(frozen=True)
class RemoteFile:
    """One file at its home.

    ``path`` is its place below the data set's folder; ``bytes`` and ``digest`` (``sha256:…``, ``md5:…`` or ``blob:…``, git's
    own) are empty where the home publishes none. ``unpack``: the archive's members go below the folder, and it is removed.
    """

    url: str
    path: str
    bytes: int = 0
    digest: str = ""
    unpack: bool = False


@dataclass(frozen=True)
class Source:
    """A data set and how it is got.

    ``listing`` names a place that lists its own files (``zenodo:RECORD``, ``hub:OWNER/NAME``, ``github:OWNER/NAME``).
    ``take`` maps beginnings of names, at the home or inside an archive, to beginnings below the folder; other names are left
    out (empty: all are taken as they are). ``articles``: the pictures are fetched one by one from PubMed Central.
    ``masks_csv``: the list its reader wants is made from the one that is published. ``by_hand`` says what only a person can
    do, ``afterwards`` what is left to do when the files are there.
    """

    name: str
    title: str
    home: str
    terms: str
    layout: str
    reader: str = ""
    files: tuple[RemoteFile, ...] = ()
    listing: str = ""
    take: tuple[tuple[str, str], ...] = ()
    leave: str = ""
    articles: bool = False
    masks_csv: bool = False
    by_hand: str = ""
    afterwards: str = ""


def _coco(year: str, *hashes: tuple[str, str, int, str]) -> Source:
    files = tuple(
        RemoteFile(f"{COCO}/{place}/{name}", name, size, f"sha256:{digest}", unpack=True)
        for place, name, size, digest in hashes
    )
    kept = ("annotations/captions_", f"train{year}/", f"val{year}/")
    return Source(
        f"coco{year}",
        f"MS COCO captions {year}",
        "https://cocodataset.org/#download",
        "annotations CC BY 4.0; the pictures under their owners' Flickr terms",
        f"annotations/captions_{{train,val}}{year}.json, train{year}/*.jpg, val{year}/*.jpg",
        reader=f"coco{year}",
        files=files,
        take=tuple((name, name) for name in kept),
    )


_ALL = (
    _coco(
        "2014",
        (
            "annotations",
            "annotations_trainval2014.zip",
            252872794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        ),
        ("zips", "val2014.zip", 6645013297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
        ("zips", "train2014.zip", 13510573713, "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
    ),
    _coco(
        "2017",
        (
            "annotations",
            "annotations_trainval2017.zip",
            252907541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
        ("zips", "val2017.zip", 815585330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
        ("zips", "train2017.zip", 19336861798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
    ),
    Source(
        "roco",
        "ROCO: radiology objects in context, with the radiology pictures of PubMed Central",
        "https://github.com/razorx89/roco-dataset",
        "each picture under its article's licence (licences.txt)",
        "data/{train,validation,test}/{radiology,non-radiology}/captions.txt, data/*/radiology/images/PMC…_NAME.jpg",
        reader="roco",
        listing="github:razorx89/roco-dataset",
        take=(("data/", "data/"),),
        articles=True,
    ),
    Source(
        "rocov2",
        "ROCOv2",
        "https://zenodo.org/records/10821435",
        "CC BY or CC BY-NC by picture (license_information.csv)",
        "{train,valid,test}_captions.csv beside the unpacked {train,valid,test}_images.zip",
        reader="rocov2",
        listing="zenodo:10821435",
    ),
    Source(
        "rocov2-hub",
        "ROCOv2 as parquet files from the Hugging Face hub",
        "https://huggingface.co/datasets/eltorio/ROCOv2-radiology",
        "CC BY-NC-SA 4.0 as the hub's card states it",
        "data/{train,validation,test}-*.parquet",
        reader="rocov2",
        listing="hub:eltorio/ROCOv2-radiology",
        take=(("data/", "data/"),),
    ),
    Source(
        "medicat",
        "MedICaT",
        "https://github.com/allenai/medicat",
        "non-commercial research, after signing AI2's form",
        "a .jsonl of figures beside figures/*.png",
        reader="medicat",
        by_hand="Fill in the form that https://github.com/allenai/medicat links to; the answer holds a link to 104 GB.",
    ),
    Source(
        "medicat-sample",
        "MedICaT's own published sample of ten figures",
        "https://github.com/allenai/medicat",
        "non-commercial research",
        "sample.jsonl, figures/*.png",
        reader="medicat",
        listing="github:allenai/medicat",
        take=(("sample/", ""),),
    ),
    Source(
        "medpix",
        "MedPix 2.0",
        "https://zenodo.org/records/12624810 (and https://github.com/CHILab1/MedPix-2.0)",
        "research use; the licence stands on the record's page",
        "images/MPX…_synpic….png and splitted_dataset/descriptions_{train,dev,test}.jsonl",
        reader="medpix",
        listing="zenodo:12624810",
        take=(("MedPix-2-0/", ""), ("", "")),
    ),
    Source(
        "cxr_labels",
        "chest X-rays with one label each",
        "https://github.com/muhammedtalo/COVID-19",
        "research use; pictures of ChestX-ray8 and of the ieee8023 collection under their own terms",
        "{no_findings,pneumonia,covid19}/*",
        reader="cxr_labels",
        listing="github:muhammedtalo/COVID-19",
        take=tuple(
            (f"{folder}/{home}/", f"{label}/")
            for folder in ("X-Ray Image DataSet", "Dataset")
            for home, label in (("No_findings", "no_findings"), ("Pneumonia", "pneumonia"), ("Covid-19", "covid19"))
        ),
    ),
    Source(
        "cxr_seg",
        "chest X-rays with expert masks",
        "https://github.com/GeneralBlockchain/covid-19-chest-xray-segmentations-dataset",
        "CC BY 4.0; each picture under its own licence",
        "images/*, masks/*.png, structure.csv and masks.csv made from it",
        reader="cxr_seg",
        listing="github:GeneralBlockchain/covid-19-chest-xray-segmentations-dataset",
        take=tuple((name, name) for name in ("images/", "masks/", "structure.csv", "metadata.csv")),
        masks_csv=True,
    ),
    Source(
        "busi",
        "BUSI: breast ultrasound",
        "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        "research use; cite Al-Dhabyani et al. 2020",
        "{benign,malignant,normal}/*.png (without the lesion masks)",
        reader="busi",
        files=(RemoteFile("https://scholar.cu.edu.eg/Dataset_BUSI.zip", "Dataset_BUSI.zip", unpack=True),),
        take=tuple((f"Dataset_BUSI_with_GT/{label}/", f"{label}/") for label in ("benign", "malignant", "normal")),
        leave=r"_mask(_\d+)?\.png$",
    ),
    Source(
        "sa-med2d",
        "SA-Med2D-20M (16M masks are public)",
        "https://huggingface.co/datasets/OpenGVLab/SA-Med2D-20M",
        "the terms on the hub's card; each part under its own data set's licence",
        "raw/SA-Med2D-16M.z01 … .z10 and raw/SA-Med2D-16M.zip, one archive in parts",
        listing="hub:OpenGVLab/SA-Med2D-20M",
        take=(("raw/", "raw/"),),
        afterwards="The archive is in parts: unpack it with `7z x raw/SA-Med2D-16M.zip`.",
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
