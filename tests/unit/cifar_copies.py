"""Small copies of CIFAR-10 of random images, in both published formats."""

import pickle
from pathlib import Path

import numpy as np

IMAGES_A_BATCH = 4
NAMES = [f"thing{number}" for number in range(10)]


def images(seed: int, count: int = IMAGES_A_BATCH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def as_python_2_wrote(array: np.ndarray) -> bytes:
    """The opcodes by which Python 2 pickled {'data': array, 'labels': [...]}, written by hand."""
    labels = b"".join(b"K" + bytes([label % 10]) for label in range(len(array)))
    raw = array.tobytes()
    return (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K" + bytes([len(array)]) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T"
        + len(raw).to_bytes(4, "little")
        + raw
        + b"tbU\x06labelsq\x08]("
        + labels
        + b"eu."
    )


def write_python(folder: Path, images_a_batch: int = IMAGES_A_BATCH) -> None:
    folder.mkdir(parents=True)
    for batch in range(1, 6):
        (folder / f"data_batch_{batch}").write_bytes(
            as_python_2_wrote(images(batch, images_a_batch))
        )
    (folder / "test_batch").write_bytes(as_python_2_wrote(images(6, images_a_batch)))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}, protocol=2))


def write_binary(folder: Path, images_a_batch: int = IMAGES_A_BATCH) -> None:
    folder.mkdir(parents=True)
    for batch, name in enumerate((*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"), 1):
        records = [
            bytes([n % 10]) + row.tobytes() for n, row in enumerate(images(batch, images_a_batch))
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")


CIFAR10 = {"cifar-10-batches-py": write_python, "cifar-10-batches-bin": write_binary}
"""What writes the folder of that name."""
