"""The container of a bundle: a gzip-compressed ustar archive of plain files in one folder.

Written so that the same files give the same bytes. Read by a parser that knows regular files and
nothing else: an archive comes from somewhere else, and links, devices, sparse files and extended
headers are what archives are attacked with. Nothing is extracted by a name that the archive chose
without that name having been checked, and nothing without a limit.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pytest_pgo_eks.errors import UsageProblem

BLOCK = 512
_CHUNK = 1 << 20
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a pipe",
    b"x": "an extended header",
    b"g": "an extended header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a sparse file",
}


@dataclass(frozen=True)
class Limits:
    """What is absurd. The largest run seen so far (78 scenarios, 22 histories) unpacks to 14 MiB."""

    files: int = 200_000
    file_bytes: int = 1 << 30
    all_bytes: int = 4 << 30
    # Logs of one sentence repeated compress fifty-fold; a bomb a thousand-fold.
    ratio: int = 200
    # Small archives may hold anything.
    free_bytes: int = 64 << 20


@dataclass(frozen=True)
class Unpacked:
    """One file as the archive holds it; ``name`` is relative to the archive's one folder."""

    name: str
    size: int
    sha256: str


def pack(archive: Path, folder: str, files: Iterable[tuple[str, Path | bytes]]) -> None:
    """Write ``files`` (name, content) below ``folder`` into ``archive``, in the given order.

    :raises UsageProblem: a name does not fit the format, or the archive cannot be written.
    """
    draft = archive.with_name(f".{archive.name}.tmp")
    try:
        with (
            draft.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as squeezed,
            tarfile.open(fileobj=squeezed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for name, content in files:
                _add(tar, folder, name, content)
        draft.replace(archive)
    except OSError as error:
        raise UsageProblem(f"{archive}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, folder: str, name: str, content: Path | bytes) -> None:
    member = tarfile.TarInfo(str(checked_name(f"{folder}/{name}", folder)))
    member.mode = 0o644
    data = content.read_bytes() if isinstance(content, Path) else content
    member.size = len(data)
    try:
        tar.addfile(member, io.BytesIO(data))
    except ValueError as error:
        raise UsageProblem(f"{name}: no name for an archive: {error}") from None


def unpack(archive: Path, to: Path, limits: Limits | None = None) -> list[Unpacked]:
    """Write every file of ``archive`` into the empty folder ``to``, without the archive's own folder.

    :raises UsageProblem: it is cut off, damaged, too large, or holds anything that a bundle does not:
        one line that says what and where.
    """
    allowed = limits or Limits()
    try:
        with archive.open("rb") as raw:
            size = archive.stat().st_size
            stream = _Metered(gzip.GzipFile(fileobj=raw), archive.name, size, allowed)
            return list(_files(stream, archive.name, to, allowed))
    except EOFError:
        raise UsageProblem(f"{archive.name}: cut off: the archive ends in its middle") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UsageProblem(f"{archive.name}: no bundle, or damaged: {error}") from None
    except OSError as error:
        raise UsageProblem(f"{archive.name}: cannot be read: {error.strerror or error}") from None


class _Metered:
    """Reads what is decompressed, and stops where it becomes absurd."""

    def __init__(self, source: gzip.GzipFile, name: str, packed: int, limits: Limits) -> None:
        self._source, self._name = source, name
        self._most = min(limits.all_bytes, max(limits.free_bytes, packed * limits.ratio))
        self._packed = packed
        self.seen = 0

    def block(self) -> bytes:
        """Return the next 512 bytes, empty at the end."""
        return self.read(BLOCK) if self._peek() else b""

    def _peek(self) -> bool:
        # GzipFile.peek may return nothing before the end of an empty member; one byte is enough.
        return bool(self._source.peek(1))

    def read(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        found = self._source.read(count)
        self.seen += len(found)
        if self.seen > self._most:
            raise UsageProblem(
                f"{self._name}: {self._packed} bytes unpack to more than {self._most}: too much for "
                "a bundle"
            )
        if len(found) < count:
            raise EOFError
        return found


def _files(stream: _Metered, archive: str, to: Path, limits: Limits) -> Iterator[Unpacked]:
    folder = ""
    seen: set[str] = set()
    while header := stream.block():
        if not header.strip(b"\0"):
            _only_zeros(stream, archive)
            return
        path, size = _header(header, archive, limits)
        top, name = path.parts[0], "/".join(path.parts[1:])
        if folder and top != folder:
            raise UsageProblem(f"{archive}: {top!r} and {folder!r}: a bundle has one folder")
        folder = top
        # Case-insensitive file systems would let one overwrite the other.
        if name.casefold() in seen:
            raise UsageProblem(f"{archive}: {name!r} is in it twice")
        seen.add(name.casefold())
        if len(seen) > limits.files:
            raise UsageProblem(f"{archive}: more than {limits.files} files: too many for a bundle")
        yield Unpacked(name, size, _extract(stream, to / name, size))
    raise EOFError


def _header(header: bytes, archive: str, limits: Limits) -> tuple[PurePosixPath, int]:
    told = _octal(header[148:156])
    if told != sum(header[:148]) + 8 * 32 + sum(header[156:]) or header[257:263] != b"ustar\0":
        raise UsageProblem(f"{archive}: damaged, or no archive that this program wrote")
    parts = [header[345:500].rstrip(b"\0"), header[:100].rstrip(b"\0")]
    try:
        name = b"/".join(part for part in parts if part).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageProblem(f"{archive}: a file's name is no UTF-8") from None
    kind = header[156:157]
    if kind not in (b"0", b"\0"):
        what = _KINDS.get(kind, f"an entry of type {kind!r}")
        raise UsageProblem(f"{archive}: {name!r} is {what}; a bundle holds plain files only")
    path = checked_name(name, archive)
    size = _octal(header[124:136])
    if size is None or size > limits.file_bytes:
        raise UsageProblem(f"{archive}: {name!r} is too large for a bundle ({size} bytes)")
    return path, size


def checked_name(name: str, archive: str) -> PurePosixPath:
    """Return the path of a file in an archive: a folder and at least one name below it.

    :raises UsageProblem: it leads elsewhere, or is none on one of the systems that people use.
    """
    path = PurePosixPath(name)
    # PurePosixPath drops empty parts and single dots, so what it says again must be the same.
    bad = str(path) != name or path.is_absolute() or ".." in path.parts or len(path.parts) < 2
    if bad or any(not one.isprintable() or one in '\\:*?"<>|' for one in name):
        raise UsageProblem(f"{archive}: {name!r} is no name for a file of a bundle")
    return path


def _octal(field: bytes) -> int | None:
    digits = field.strip(b"\0 ")
    if not digits or not set(digits) <= set(b"01234567"):
        return None
    return int(digits, 8)


def _extract(stream: _Metered, path: Path, size: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), size
    with path.open("xb") as file:
        while left:
            part = stream.read(min(left, _CHUNK))
            digest.update(part)
            file.write(part)
            left -= len(part)
    if size % BLOCK and stream.read(BLOCK - size % BLOCK).strip(b"\0"):
        raise UsageProblem(f"something stands behind {path.name!r} in the archive")
    return digest.hexdigest()


def _only_zeros(stream: _Metered, archive: str) -> None:
    while block := stream.block():
        if block.strip(b"\0"):
            raise UsageProblem(f"{archive}: something stands behind the end of the archive")
