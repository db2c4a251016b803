"""Files that are whole or absent, also after a crash: atomic writes, checksums, locks, and the disk's errors in one line."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from pbb_helpers.programs import UsageError

MANIFEST = "manifest.json"
LONGEST_NAME = 200  # bytes; most file systems take 255, and endings come on top
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file: `why` reads on from its name, as in "is missing"."""

    path: Path
    why: str


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turns a full disk and a lack of permission while writing `path` into a `UsageError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = _errno(error)
        if code in NO_SPACE:
            raise UsageError(
                f"no space left on the disk of {path}; what is finished is kept: free some space and run the same command again"
            ) from error
        if code in NO_PERMISSION:
            raise UsageError(f"no permission to write {path}; choose another folder for runs or change its permissions") from error
        raise


def _errno(error: BaseException) -> int | None:
    """Returns the errno; safetensors and tokenizers, written in Rust, only say it in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    return next((code for code in (*NO_SPACE, *NO_PERMISSION) if f"(os error {code})" in str(error)), None)


def plain_name(name: str, what: str) -> str:
    """Returns the name if it names one file or folder and can lead nowhere else.

    Raises:
        UsageError: It is empty, too long, or holds a separator or a character that cannot be seen.
    """
    if name in ("", ".", "..") or not name.isprintable() or {"/", "\\"} & set(name) or len(name.encode()) > LONGEST_NAME:
        raise UsageError(f"{what} {name!r} cannot name a folder; give up to {LONGEST_NAME} bytes, no slashes, no control characters")
    return name


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file: after a crash it holds all of the old text or all of the new."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temp, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path, files: Iterable[Path], of: str = "") -> None:
    """Writes manifest.json, with size and SHA-256 of the files below `folder`, once they have reached the disk.

    `of` names what the files are, so that a whole copy of something else in their place is noticed.
    """
    entries = {}
    for file in files:
        if file.name == MANIFEST and file.parent == folder:
            continue
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
            entries[file.relative_to(folder).as_posix()] = {
                "bytes": file.stat().st_size,
                "sha256": hashlib.file_digest(handle, "sha256").hexdigest(),
            }
    write_text(folder / MANIFEST, json.dumps({"of": of, "files": entries, "sha256": _seal(entries, of)}, indent=2) + "\n")


def check_manifest(folder: Path, of: str = "") -> Damage | None:
    """Returns the first thing that is wrong with a folder that `write_manifest` sealed as being `of` this, or None.

    What is wrong always lies in the folder: a manifest of another's making, which names files elsewhere, is itself what is wrong.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        entries, seal, its = manifest["files"], manifest["sha256"], manifest.get("of", "")
        outside = [name for name in entries if not (folder / name).resolve().is_relative_to(folder.resolve())]
        files = {folder / name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        return Damage(folder / MANIFEST, "is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Damage(folder / MANIFEST, "cannot be read")
    if seal != _seal(entries, its):
        return Damage(folder / MANIFEST, "was changed since it was written")
    if its != of:
        return Damage(folder / MANIFEST, f"is that of {its}" if its else "does not say what it is of")
    if outside:
        return Damage(folder / MANIFEST, f"names a file outside of its folder ({outside[0]})")
    return next((damage for path, said in files.items() if (damage := _check_file(path, *said))), None)


def _seal(entries: dict, of: str) -> str:
    return hashlib.sha256((json.dumps(entries, sort_keys=True) + str(of)).encode()).hexdigest()


def _check_file(path: Path, length: int, sha256: str) -> Damage | None:
    try:
        if (size := path.stat().st_size) != length:
            return Damage(path, f"has {size} bytes instead of {length}")
        with open(path, "rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != sha256:
                return Damage(path, "does not have the checksum it was written with")
    except OSError as error:
        return Damage(path, "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})")
    return None


@contextmanager
def lock(path: Path, on_wait: Callable[[str], None], poll: float = 0.2) -> Iterator[bool]:
    """Holds a lock file, waiting for whoever holds it; gives whether that is a real lock, which not every disk has.

    The lock is the kernel's (flock), so it ends with its process, however that ends: nothing stale is left, and no process id that was
    used again is taken for the holder. The file says who holds it, for people and for `on_wait`.
    """
    with plain_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        waited = False
        while (locked := _try_lock(handle)) is False:
            if not waited:
                on_wait(os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process")
                waited = True
            time.sleep(poll)
        with plain_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield locked is True
    finally:
        os.close(handle)


def held(path: Path) -> bool:
    """Returns whether some process holds this lock file now."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return _try_lock(handle) is False
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool | None:
    """Returns whether the file is locked now, or None where the disk has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None  # as some network file systems: writing stays atomic, so that the worst is that two processes do the same work
    return True
