"""The facts a scan may carry out: a few coded tags, and of each only the codes that DICOM defines for it.

A free text in a coded tag (a name in the body part, say) is well-formed DICOM, so the form alone is no protection; what is not in
these lists stays behind.
"""

from __future__ import annotations

from pydicom import Dataset

from msmedcap.data.scans.dicom_tags import value_of

_SIDES = frozenset({"L", "R", "B", "U"})
_MODALITIES = frozenset({
    "BI", "BMD", "CR", "CT", "DG", "DOC", "DX", "ECG", "ES", "GM", "IO", "IVOCT", "IVUS", "LS", "MG", "MR", "NM", "OAM",
    "OCT", "OP", "OPT", "OT", "PT", "PX", "RF", "RG", "RTDOSE", "RTIMAGE", "SC", "SEG", "SM", "TG", "US", "XA", "XC",
})  # fmt: skip
_VIEWS = frozenset({
    "AP", "PA", "LL", "RL", "LAT", "LATERAL", "FRONTAL", "OBLIQUE", "OBL", "AXIAL", "SAGITTAL", "CORONAL", "TANGENTIAL",
    "RLD", "LLD", "RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "CC", "ML", "LM", "MLO", "LMO", "FB", "SIO", "ISO", "XCC",
    "XCCL", "XCCM", "AT", "CV", "SPECIMEN",
})  # fmt: skip
_BODY_PARTS = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ADRENAL", "ANKLE", "AORTA", "ARM", "AXILLA", "BACK", "BLADDER", "BRACHIALPLEXUS", "BRAIN",
    "BREAST", "BRONCHUS", "BUTTOCK", "CALCANEUS", "CALF", "CAROTID", "CEREBELLUM", "CHEEK", "CHEST", "CHESTABDOMEN",
    "CHESTABDPELVIS", "CIRCLEOFWILLIS", "CLAVICLE", "COCCYX", "COLON", "CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM",
    "EAR", "ELBOW", "ESOPHAGUS", "EXTREMITY", "EYE", "EYELID", "FACE", "FEMUR", "FETUS", "FINGER", "FOOT", "FOREARM",
    "GALLBLADDER", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "HUMERUS", "ILEUM", "ILIUM", "IAC", "INTESTINE", "JAW",
    "JEJUNUM", "KIDNEY", "KNEE", "LARYNX", "LEG", "LIVER", "LLEG", "LOWERLEG", "LSPINE", "LSSPINE", "LUNG", "MANDIBLE",
    "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK", "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "NOSE", "ORBIT",
    "OVARY", "PANCREAS", "PAROTID", "PATELLA", "PELVIS", "PENIS", "PHARYNX", "PROSTATE", "RECTUM", "RIB", "RIBS", "SCALP",
    "SCAPULA", "SCLERA", "SCROTUM", "SELLA", "SHOULDER", "SINUS", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM",
    "STOMACH", "TESTIS", "THIGH", "THORAX", "THUMB", "THYMUS", "THYROID", "TIBIA", "TLSPINE", "TMJ", "TOE", "TONGUE",
    "TRACHEA", "TSPINE", "ULNA", "URETER", "URETHRA", "URINARYTRACT", "UTERUS", "VAGINA", "VULVA", "WHOLEBODY", "WRIST",
    "ZYGOMA",
})  # fmt: skip
FACTS: dict[str, frozenset[str]] = {
    "Modality": _MODALITIES,
    "BodyPartExamined": _BODY_PARTS,
    "Laterality": _SIDES,
    "ImageLaterality": _SIDES,
    "ViewPosition": _VIEWS,
}
"""The only tags whose text leaves this package, and the codes each may hold."""

_GAPS = str.maketrans("", "", " _-")


def facts_of(dataset: Dataset) -> dict[str, str]:
    """The allow-listed tags of ``dataset`` whose value is one of their codes, in upper case."""
    found = {name: str(value_of(dataset, name) or "").strip().upper() for name in FACTS}
    # "WHOLE BODY" and "C_SPINE" are written with and without their gap.
    return {name: code for name, code in found.items() if code.translate(_GAPS) in FACTS[name]}
