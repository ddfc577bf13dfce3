"""A tar archive in pieces that can be appended one by one: the same samples make the same bytes, whoever stops when."""

from __future__ import annotations

import tarfile

from facekd.data.image_headers import sniff


def tar_sample(key: int, label: int, image: bytes) -> bytes:
    """The members ``KEY.jpg`` (or ``.png``, ``.bmp``, ``.webp``) and ``KEY.cls``, without time, owner or group.

    Example:
        >>> len(tar_sample(7, 1, b"\\xff\\xd8\\xff"))
        2048
    """
    kind = sniff(image) or ""
    image_member = _member(f"{key:09d}.{'jpg' if kind == 'jpeg' else kind}", image)
    return image_member + _member(f"{key:09d}.cls", str(label).encode())


def tar_end(size: int) -> bytes:
    """What ends an archive of ``size`` bytes: two blocks of zeros, and more up to a whole record.

    Example:
        >>> len(tar_end(2048)), len(tar_end(10240 - 512))
        (8192, 10752)
    """
    return bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)


def _member(name: str, data: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    return entry.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
