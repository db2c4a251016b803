"""Where a model is: a shipped name, a folder or a hub id becomes a folder whose files were checked. Needs no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pbb_helpers.markup import shortened
from pbb_helpers.notebook import runs_root
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.training.recipes import LADDER

SHIPPED = Path(__file__).parents[1] / "shipped"
HUB_ID = re.compile(r"(?!.*\.\.)[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
NOT_RUN = "that is not run: read it, and if you trust it set the parameter trust_remote_code to True"
HUB_SECONDS = 10
"""How long the hub may take to answer whether a model exists."""


@dataclass(frozen=True)
class Card:
    """What is known about a shipped model: `facts` is the whole of its card.json."""

    name: str
    folder: Path
    facts: dict[str, Any]


def shipped() -> dict[str, Card]:
    """Returns the models that come with the package, by name."""
    folders = sorted(path.parent for path in SHIPPED.glob("*/config.json"))
    return {folder.name: Card(folder.name, folder, read_json(folder / "card.json")) for folder in folders}


def is_hub_id(spec: str) -> bool:
    """Returns whether only the hub can know this model: it is no shipped name, none of the ladder, and no folder that is or should be there."""
    return bool(HUB_ID.fullmatch(spec)) and not Path(spec).parent.is_dir()


def find(spec: str, *, trust_remote_code: bool = False) -> tuple[Path, str | None]:
    """Returns the folder that holds the model, and its key if that is known without reading the files.

    Args:
        spec: A shipped name, another of the ladder that was made here, a folder or a hub id.
        trust_remote_code: Download the Python files of a hub model as well.
    """
    cards = shipped()
    if spec in cards:
        return cards[spec].folder, None
    if spec in LADDER:
        if folder := made(spec):
            return folder, None
        raise UsageError(f"model {spec!r} does not ship and is not made yet; make it with: pbb pretrain --name {spec}")
    try:
        path = Path(spec).expanduser()
        is_folder, is_file = spec.isprintable() and path.is_dir(), spec.isprintable() and path.is_file()
    except (OSError, RuntimeError) as error:  # a name longer than the file system takes, ~nobody
        raise UsageError(f"model {shortened(spec, 200)!r} cannot be a folder ({getattr(error, 'strerror', None) or error})") from None
    if not spec.isprintable():
        raise UsageError(f"model {shortened(spec, 200)!r} holds characters that cannot be seen; type the name or the folder again")
    if spec and is_folder:
        return path, None
    if is_file:
        raise UsageError(f"model {spec!r} is a file; give the folder that holds config.json, *.safetensors and the tokenizer")
    is_path = spec.startswith((".", "~", "/")) or path.is_absolute() or ("/" in spec and path.parent.is_dir())
    if is_path or ("/" in spec and not HUB_ID.fullmatch(spec)):
        raise UsageError(f"model folder {spec!r} does not exist; {_siblings(path)}")
    if not HUB_ID.fullmatch(spec):
        unknown = did_you_mean("model", spec, {**cards, **LADDER})
        raise UsageError(f"{unknown}, or give a folder (./my-model) or a hub id (org/name)")
    return _find_on_hub(spec, trust_remote_code)


def made_root() -> Path:
    """Returns the folder of the models that `pbb pretrain` made: `PBB_MODELS`, which a run hands on to its kernel, else pretrain/ below that of all runs."""
    return Path(os.environ.get("PBB_MODELS") or runs_root() / "pretrain")


def made(name: str) -> Path | None:
    """Returns the folder of a model of the ladder that was made here, None if it was not or is not finished."""
    folder = made_root() / name
    return folder if (folder / "card.json").is_file() else None


def _siblings(path: Path) -> str:
    """Returns what a user who mistyped a folder may have meant."""
    try:
        return str(did_you_mean("folder", path.name, (p.name for p in path.parent.iterdir() if p.is_dir())))
    except OSError:
        return f"neither does {str(path.parent)!r}"


def made_here(spec: str) -> Path | None:
    """Returns the folder of a model that lies on this machine and does not ship, None for any other: the hub is not asked."""
    try:
        if not spec or spec in shipped():
            return None
        folder = made(spec) if spec in LADDER else Path(spec).expanduser()
        return folder if folder and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # no path: `find` says so
        return None


def cached(spec: str, *, trust_remote_code: bool = False) -> tuple[Path, str] | None:
    """Returns what `find` does for a hub model that lies whole in the local cache, None for any other: the hub is not asked."""
    try:
        if not is_hub_id(spec):
            return None
    except OSError:  # no path: `find` says so
        return None
    from huggingface_hub import snapshot_download

    name, _, revision = spec.partition("@")
    with contextlib.suppress(OSError, ValueError, UsageError):
        folder = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
        check_folder(folder, trust_remote_code=trust_remote_code)
        if not trust_remote_code or any(folder.glob("*.py")) or "auto_map" not in read_json(folder / "config.json"):
            return folder, f"{name}@{folder.name}"
    return None


def _find_on_hub(spec: str, trust_remote_code: bool) -> tuple[Path, str]:
    """Returns the local snapshot of a hub model, downloaded if need be, and "id@commit".

    What is in the local cache is taken from there without asking the network. The hub is asked once, with a short time limit,
    before a download starts: the download itself would try for half a minute and end in a long traceback.
    """
    if found := cached(spec, trust_remote_code=trust_remote_code):
        return found
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = spec.partition("@")
    # Only the top folder, so that repositories that carry the weights twice (original/, consolidated) are fetched once.
    kinds = ["*.py"] if trust_remote_code else []
    files: dict[str, Any] = {
        "allow_patterns": [*kinds, "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"],
        "ignore_patterns": ["*/*", "consolidated*"],
    }
    try:
        commit = HfApi().model_info(name, revision=revision or None, timeout=HUB_SECONDS).sha
        folder = Path(snapshot_download(name, revision=commit, **files))
    except GatedRepoError as error:
        raise UsageError(f"model {name!r} is gated: accept its licence on the hub and log in with `hf auth login`") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UsageError(f"the hub knows no model {spec!r}; shipped models: {', '.join(shipped()) or 'none'}") from error
    except Exception as error:  # the http library and its errors change between versions of huggingface_hub
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"model {spec!r} is not in the local cache and the hub cannot be reached ({reason}); give a folder") from error
    return folder, f"{name}@{commit}"


def check_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Raises a UsageError that names what is missing, damaged or not read, before transformers turns it into a page of traceback."""
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        hint = "it is an adapter: give its base model" if adapter else "a model folder has config.json, *.safetensors, tokenizer.json"
        raise UsageError(f"{str(folder)!r} holds no config.json; {hint}")
    if (folder / "adapter_config.json").is_file():  # transformers would load it too, also from a pickle
        raise UsageError(
            f"{str(folder)!r} holds a model and an adapter; merge them, or move adapter_config.json out to use the model alone"
        )
    kernels = re.findall(r'_implementation": ("[^"]*/[^"]*")', json.dumps(read_json(folder / "config.json")))
    if kernels and not trust_remote_code:
        raise UsageError(f"{str(folder)!r}: its config.json asks for code from {kernels[0]}; {NOT_RUN}")
    index = folder / "model.safetensors.index.json"
    shards = read_json(index).get("weight_map", {}) if index.is_file() else {}
    shards = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise UsageError(f"{index} names {outside[0]!r}, which is not a file of this folder; put the index there again")
    weights = [folder / shard for shard in shards] or sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UsageError(f"{str(folder)!r} holds no *.safetensors; weights in other formats are not read, convert them first")
    for path in weights:
        check_safetensors(path)


def check_safetensors(path: Path) -> None:
    """Raises a UsageError if the file is missing, cut short or has a broken header; the values themselves are not read."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} is damaged or missing ({error}); put the file there again") from error


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error}); put the file there again") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a JSON {type(content).__name__}, not an object; put the file there again")
    return content


def hash_files(folder: Path, *, code: bool = False) -> str:
    """Returns a sha256 over everything in the folder that decides what the model answers; with `code` over its Python files too."""
    digest = hashlib.sha256()
    kinds: tuple[str, ...] = (
        "*.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer*",
        "vocab*",
        "merges*",
        "*.model",
        "special*",
        "added*",
        "*.jinja",
    )
    kinds += ("*.py",) if code else ()
    for path in sorted({path for kind in kinds for path in folder.glob(kind) if path.is_file()}):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
