"""Tiny CT files: NIfTI in any axis order, DICOM series, cases in the official layout."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pydicom
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SPACING = (2.0, 1.5, 3.0)
AFFINE = np.array([[2.0, 0, 0, -20], [0, 1.5, 0, -300], [0, 0, 3, 50], [0, 0, 0, 1]])
"""Patient axes (RAS)."""


def scan(shape=(7, 6, 5), seed=0):
    """Hounsfield units, X x Y x Z in patient axes; no two voxels alike, so that every mix-up shows."""
    values = np.random.default_rng(seed).permutation(int(np.prod(shape))) * 7 - 1000
    return values.reshape(shape).astype(np.int16)


def labels(shape=(7, 6, 5), seed=0):
    """BTCV's ids 0 to 13."""
    return np.random.default_rng(seed + 100).integers(0, 14, shape).astype(np.uint8)


def write_nifti(path: Path, voxels, affine=AFFINE, axes="LAS"):
    """Write a volume given in patient axes with its axes in another order."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    image = nib.Nifti1Image(apply_orientation(voxels, change), affine @ inv_ornt_aff(change, voxels.shape[:3]))
    image.set_data_dtype(voxels.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def write_case(root: Path, case: int, shape=(7, 6, 5), image=None, label=None):
    """Write one case with the official names; return image and label file."""
    folder = root / "RawData" / "Training"
    return (
        write_nifti(folder / "img" / f"img{case:04d}.nii.gz", scan(shape, case) if image is None else image),
        write_nifti(folder / "label" / f"label{case:04d}.nii.gz", labels(shape, case) if label is None else label),
    )


def write_series(folder: Path, voxels, affine=AFFINE, intercept=-1024, heights=None, **fields):
    """Write a volume in patient axes as a DICOM series, head first, file names in no order.

    ``fields`` are set on every slice, or on one slice each if they are lists; those that are None are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for k in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"CT.{(k * 3) % 7}{k}"
        data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.Modality, data.SeriesInstanceUID = "CT", series
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        first = affine @ [voxels.shape[0] - 1, voxels.shape[1] - 1, k, 1]
        height = first[2] if heights is None else heights[k]
        data.ImagePositionPatient = [-first[0], -first[1], height]
        data.PixelSpacing = [affine[1, 1], affine[0, 0]]
        data.RescaleSlope, data.RescaleIntercept = 1, intercept
        pixels = (voxels[::-1, ::-1, k].T.astype(np.int32) - intercept).astype(np.uint16)
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.PixelData = np.ascontiguousarray(pixels).tobytes()
        for name, values in fields.items():
            value = values[k] if isinstance(values, list) else values
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)
        pydicom.dcmwrite(path, data)
    return folder


def own_folder(root: Path, names: str = "ab") -> Path:
    """A user's own scans and labels, named by single letters."""
    for seed, name in enumerate(names):
        write_nifti(root / "images" / f"{name}.nii.gz", scan(seed=seed))
        write_nifti(root / "labels" / f"{name}.nii", labels(seed=seed))
    return root


def raw(data_root: Path, cases=(5, 6, 1)) -> Path:
    """A data root with the official files of some cases."""
    for case in cases:
        write_case(data_root / "synapse", case)
    return data_root


def transunet(data_root: Path) -> Path:
    """TransUNet's own download: no manifest, labels as float32."""
    rng, folder = np.random.default_rng(0), data_root / "synapse" / "project_TransUNet" / "Synapse"
    for part in ("train_npz", "test_vol_h5"):
        (folder / part).mkdir(parents=True)
    for case, n in (("case0006", 2), ("case0005", 3)):
        for number in range(n):
            image, label = rng.random((8, 8), np.float32), rng.integers(0, 9, (8, 8)).astype(np.float32)
            np.savez(folder / "train_npz" / f"{case}_slice{number:03d}.npz", image=image, label=label)
    with h5py.File(folder / "test_vol_h5" / "case0008.npy.h5", "w") as file:
        file["image"], file["label"] = rng.random((4, 8, 8), np.float32), np.full((4, 8, 8), 8, np.float32)
    return data_root
