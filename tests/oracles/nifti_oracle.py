"""Files written by nibabel for the reader, and nibabel's view of files written by Cinnabar.

nifti_oracle.py write FOLDER     one NAME.nii[.gz] per case, with its affine in NAME.txt
nifti_oracle.py check FILE TXT   exits 0 if FILE holds the pattern on the grid whose matrix is in TXT
nifti_oracle.py field FILE TXT   the same for an ITK displacement field
"""
import sys
import numpy as np
import nibabel as nib


def pattern(shape):
    x, y, z = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return (7 * x + 13 * y + 29 * z) % 101


def grids():
    a = np.array([[-1.5, 0.2, 0.1, 31.25], [0.3, 0.8, -0.6, -17.5], [0.05, 0.4, 2.5, 8.75], [0, 0, 0, 1]])
    yield "ras", np.diag([1.0, 1.0, 1.0, 1.0])
    yield "las", np.diag([-2.0, 1.0, 3.0, 1.0])
    yield "lia", np.array([[-1.0, 0, 0, 127], [0, 0, 1, -145], [0, -1, 0, 147], [0, 0, 0, 1]])
    yield "sheared", a


def write(folder):
    data = pattern((9, 7, 5))
    types = "uint8 int8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()
    for version, image_class in (("n1", nib.Nifti1Image), ("n2", nib.Nifti2Image)):
        for name, affine in grids():
            for order in "<>":
                for kind in types if name == "las" else ["int16"]:
                    header = image_class.header_class(endianness=order)
                    header.set_data_dtype(np.dtype(kind).newbyteorder(order))
                    image = image_class(data.astype(kind), affine, header)
                    image.header.set_sform(affine, 1)
                    image.header.set_qform(affine, 0, strip_shears=True)
                    suffix = ".nii.gz" if kind in ("int16", "float32") else ".nii"
                    stem = f"{folder}/{version}_{name}_{'big' if order == '>' else 'little'}_{kind}"
                    nib.save(image, stem + suffix)
                    np.savetxt(stem + ".txt", affine)
    # The qform alone, on an oblique left-handed grid.
    turn = nib.eulerangles.euler2mat(0.5, -0.3, 0.2) @ np.diag([-1.5, 0.8, 2.5])
    affine = nib.affines.from_matvec(turn, [3, -4, 5])
    image = nib.Nifti1Image(data.astype(np.int16), affine)
    image.header.set_sform(None, 0)
    image.header.set_qform(affine, 1)
    nib.save(image, f"{folder}/qform_only.nii.gz")
    np.savetxt(f"{folder}/qform_only.txt", image.header.get_qform())
    # Slope and intercept: stored integers 2 * pattern + 6 stand for pattern.
    image = nib.Nifti1Image((2 * data + 6).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -3.0)
    image.header["scl_slope"], image.header["scl_inter"] = 0.5, -3.0
    with open(f"{folder}/scaled.nii", "wb") as file:
        header = image.header.copy()
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        file.write(header.binaryblock + b"\0" * 4 + (2 * data + 6).astype("<i2").tobytes(order="F"))
    np.savetxt(f"{folder}/scaled.txt", image.affine)
    # A 4-D image with one frame.
    nib.save(nib.Nifti1Image(data[..., None].astype(np.float32), np.eye(4)), f"{folder}/one_frame.nii.gz")
    np.savetxt(f"{folder}/one_frame.txt", np.eye(4))


def same_grid(image, affine):
    header = image.header
    assert np.allclose(image.affine, affine, atol=1e-5), (image.affine, affine)
    assert header["sform_code"] > 0
    if header["qform_code"] > 0:
        assert np.allclose(header.get_qform(), affine, atol=2e-3), (header.get_qform(), affine)
    assert np.allclose(header.get_zooms()[:3], np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-6)
    assert header.get_xyzt_units()[0] == "mm"


def check(path, affine):
    image = nib.load(path)
    same_grid(image, affine)
    data = np.asanyarray(image.dataobj)
    assert np.array_equal(data, pattern(data.shape)), "voxels differ"


def field(path, affine):
    image = nib.load(path)
    same_grid(image, affine)
    assert image.header["intent_code"] == 1007 and image.header["dim"].tolist()[:1] == [5]
    assert image.shape[3:] == (1, 3) and image.get_data_dtype() == np.float32
    base = pattern(image.shape[:3])
    ras = np.stack([base, 2 * base, 3 * base], axis=-1)
    data = np.asanyarray(image.dataobj)[:, :, :, 0, :]
    assert np.array_equal(data, ras * np.array([-1, -1, 1])), "vectors differ"


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        {"check": check, "field": field}[sys.argv[1]](sys.argv[2], np.loadtxt(sys.argv[3]))
