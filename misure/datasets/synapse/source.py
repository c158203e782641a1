"""Where Synapse's slices come from: prepared ones, the official volumes, own scans, or generated phantoms."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from misure.datasets.available import Available
from misure.datasets.synapse.btcv import CaseFiles, Preparation, find_pairs, prepare
from misure.datasets.synapse.own_ct import LABEL_MAPS, LAST_LABEL_IDS, own_pairs
from misure.datasets.synapse.prepared import STAND_IN, Manifest, find_prepared
from misure.datasets.synthetic.cache import generate_once, generator_id
from misure.datasets.synthetic.phantom import VERSION, PhantomSpec, write_phantoms
from misure.errors import AbsentError, MisureError, did_you_mean, some
from misure.io.images import image_name

_PREPARED_VOLUME = 20_000_000  # bytes: 30 volumes take 0.6 GB
_PHANTOM_VOXEL = 1.8  # bytes of the volume's file and of its prepared slices together, measured


@dataclass(frozen=True)
class PreparedFolder:
    """A folder of prepared slices.

    Attributes:
        folder: Has ``train_npz`` and ``test_vol_h5``.
        source: Where the slices come from, in one line.
        stand_in: Whether they are generated.
    """

    folder: Path
    source: str
    stand_in: bool


def locate(data_root: Path | str, stand_in: Path | None = None, phantom: PhantomSpec | None = None) -> PreparedFolder:
    """Choose the first source there is: slices under ``<data_root>/synapse``, official volumes there, phantoms.

    New volumes are prepared; what is prepared stays, whatever became of its files.

    Args:
        data_root: The user's data folder (``MISURE_DATA``).
        stand_in: Where phantoms may be generated; None means that they may not.
        phantom: What they look like.

    Raises:
        MisureError: If there is no data, or more than one prepared folder, or one is not finished.
    """
    root = Path(data_root) / "synapse"
    folders, pairs = _sources(root)
    if pairs:
        return _location(_prepared(prepare(pairs, root / "prepared", keep=True)))
    if len(folders) > 1:
        raise MisureError(f"{root} has several prepared data sets, keep one: {', '.join(map(str, folders))}")
    if folders:
        return _location(folders[0])
    if stand_in is not None:
        return _location(_phantoms(stand_in, phantom))
    raise AbsentError(_absent(root))


def available(
    data_root: Path | str, stand_in: Path | str, phantom: PhantomSpec, allow_stand_in: bool = False
) -> Available:
    """Say what :func:`locate` will choose; nothing is prepared or generated.

    Args:
        data_root: The user's data folder (``MISURE_DATA``).
        stand_in: Where phantoms are generated.
        phantom: What they look like.
        allow_stand_in: Whether they may be.
    """
    root = Path(data_root) / "synapse"
    folders, pairs = _sources(root)
    manifest = Manifest.load(root / "prepared")
    if pairs and (manifest is None or not manifest.complete):
        volumes = f"{len(pairs)} official BTCV volumes, to be prepared first"
        return Available("real", volumes, to_write=_PREPARED_VOLUME * len(pairs))
    if folders:
        prepared = _location(folders[0])
        return Available("stand-in" if prepared.stand_in else "real", prepared.source, {})
    if not allow_stand_in:
        return Available("absent", _absent(root))
    manifest = Manifest.load(_home(Path(stand_in), phantom) / "prepared")
    ready = manifest is not None and manifest.complete
    size = 0 if manifest else round(_PHANTOM_VOXEL * phantom.size**2 * phantom.slices * len(phantom.cases))
    return Available("stand-in", _phantom_origin(phantom), {} if ready else None, to_write=size)


def prepare_synapse(
    data_root: Path | str, source: Path | str | None = None, labels: str = "btcv", *, strict: bool = False
) -> str:
    """Prepare official or own volumes into ``<data_root>/synapse/prepared``.

    Args:
        data_root: The user's data folder.
        source: Where the volumes are; None means under ``<data_root>/synapse``. Official file names are
            taken as they are, otherwise see :func:`misure.datasets.synapse.own_ct.own_pairs`.
        labels: How own labels are numbered: ``btcv`` or ``totalsegmentator``.
        strict: Whether a volume that is rejected is an error, raised when the others are prepared.

    Returns:
        What came out, in a few lines.

    Raises:
        MisureError: If there are no volumes, or the disk does not take the slices, or some were rejected.
    """
    if labels not in LABEL_MAPS:
        raise MisureError(f"labels={labels} is not known{did_you_mean(labels, LABEL_MAPS)}")
    root = Path(data_root) / "synapse"
    folder, in_place = Path(source or root), find_pairs(root)
    if source is None and not in_place:
        return f"nothing to prepare: {locate(data_root).source}"
    if not folder.is_dir():
        raise MisureError(f"source={source} is not a folder: name the unpacked archive or a folder of your own scans")
    if pairs := find_pairs(folder):
        official = prepare(pairs, root / "prepared")
        return _told(official.summary, len(official.lost), strict)
    if (root / "own").is_dir():
        raise MisureError(
            f"{root} has own scans that an earlier version prepared: remove its folders own and prepared first"
        )
    if in_place:
        raise MisureError(
            f"{root} holds {len(in_place)} official volumes: keep one kind, own scans in another data_root"
        )
    earlier = Manifest.load(root / "prepared")
    pairs, lonely = own_pairs(folder, earlier.numbers if earlier else None)
    done = prepare(pairs, root / "prepared", label_map=LABEL_MAPS[labels], last_label_id=LAST_LABEL_IDS[labels])
    cases = done.manifest.cases
    if not cases:
        raise MisureError(f"{folder}: no volume can be used; {done.summary}")
    used = [f"{image_name(Path(case.files[0].name))} is {name}, {case.split}" for name, case in sorted(cases.items())]
    text = "\n".join([done.summary, *used, *(f"rejected: {name}: {lonely[name]}" for name in sorted(lonely))])
    return _told(text, len(done.lost) + len(lonely), strict)


def _told(text: str, n_lost: int, strict: bool) -> str:
    if strict and n_lost:
        raise MisureError(f"{text}\nvolumes that are not used: {n_lost}, the others are prepared")
    return text


def _sources(root: Path) -> tuple[list[Path], list[CaseFiles]]:
    """Prepared folders, and volumes if nothing but what they become is prepared."""
    folders = find_prepared(root)
    return folders, find_pairs(root) if set(folders) <= {root / "prepared"} else []


def _absent(root: Path) -> str:
    return (
        "Synapse multi-organ CT was not found. Register at synapse.org and join project syn3193805 "
        "('Multi-Atlas Labeling Beyond the Cranial Vault');\n"
        "download Abdomen/RawData.zip (its Training folder has 30 images and labels) "
        "and unpack it;\n"
        f"put the folder RawData into {root}. Without it, stand_in=true uses generated phantoms, marked '{STAND_IN}'."
    )


def _prepared(done: Preparation) -> Path:
    """The folder; volumes that should have been in it and are not, or are kept from before, give a warning."""
    if done.kept:
        told = "their files are gone or have changed, so they are used as they were prepared"
        warnings.warn(f"{some(done.kept)}: {told}; misure prepare dataset=synapse follows the files", stacklevel=4)
    for name, rejected in done.lost.items():
        warnings.warn(f"{name} is not used: {rejected.reason}", stacklevel=4)
    return done.folder


def _location(folder: Path) -> PreparedFolder:
    manifest = Manifest.load(folder)
    if manifest is None:
        return PreparedFolder(folder, "TransUNet's preprocessed BTCV slices", stand_in=False)
    if not manifest.complete:
        raise MisureError(f"{folder} is not finished: run misure prepare dataset=synapse again with its source")
    stand_in = manifest.origin.startswith(STAND_IN)
    return PreparedFolder(folder, manifest.origin if stand_in else f"{len(manifest.cases)} {manifest.origin}", stand_in)


def _phantoms(folder: Path, spec: PhantomSpec | None) -> Path:
    """Generate volumes and prepare them, once for each specification and each version of the generator."""
    spec = spec or PhantomSpec()
    home = _home(folder, spec)
    volumes = generate_once(home / "volumes", lambda unfinished: write_phantoms(unfinished, spec))
    return prepare(find_pairs(volumes), home / "prepared", origin=_phantom_origin(spec), keep=True).folder


def _home(folder: Path, spec: PhantomSpec) -> Path:
    return folder / f"phantom-{generator_id(spec, VERSION)}"


def _phantom_origin(spec: PhantomSpec) -> str:
    count = f"{spec.train_volumes + spec.val_volumes} volumes of {' x '.join(map(str, spec.shape))}, seed {spec.seed}"
    return f"{STAND_IN} ({count})"
