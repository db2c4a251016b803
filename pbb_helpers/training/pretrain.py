"""How the shipped models are made: from scratch, on executing programs whose source stands in the prompt.

The names are bound to programs at random, anew in each document, so that the model knows how to run code and knows no program by heart:
what a pretrained language model brings to Programming by Backprop, in a few megabytes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pbb_helpers import provenance
from pbb_helpers.data.corpus import Mix
from pbb_helpers.disk import check_manifest, lock, plain_errors, plain_name, write_manifest, write_text
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.training.model_files import hash_files, made_root
from pbb_helpers.training.pretrain_documents import WINDOW, collate, tokens_read, windows
from pbb_helpers.training.pretrain_questions import exact_match, held_out_questions
from pbb_helpers.training.recipes import LADDER, NOTES, PretrainSettings
from pbb_helpers.training.vocabulary import build_tokenizer

CHECKPOINT = "a checkpoint of a pretraining"


def schedule(step: int, settings: PretrainSettings) -> float:
    """Returns the share of the peak learning rate at a step: warm-up, constant, then linear to zero (so that a run can be prolonged before its decay begins)."""
    start = settings.steps * (1 - settings.decay_share)
    down = 1 - (step - start) / (settings.steps - start) if step > start else 1.0
    return min(1.0, (step + 1) / settings.warmup) * max(down, 0.0)


def new_model(tokenizer: Any, settings: PretrainSettings) -> Any:
    """Returns an untrained Llama of the settings' shape or, with `passes`, an HrmText."""
    import torch
    from transformers import AutoModelForCausalLM, HrmTextConfig, LlamaConfig

    shape = {
        "vocab_size": len(tokenizer), "hidden_size": settings.hidden, "intermediate_size": settings.intermediate,
        "num_attention_heads": settings.hidden // 32, "tie_word_embeddings": True, "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
    }  # fmt: skip
    if settings.passes is None:
        config = LlamaConfig(num_hidden_layers=settings.layers, num_key_value_heads=settings.hidden // 32, **shape)
    else:
        half = settings.layers // 2
        config = HrmTextConfig(num_hidden_layers=half, head_dim=32, H_cycles=settings.passes, L_cycles=1, prefix_lm=False, **shape)
    config._attn_implementation = "eager"  # on a CPU the flash backward is the slow part for short sequences
    torch.manual_seed(settings.seed)
    return AutoModelForCausalLM.from_config(config)


def optimizers(model: Any, settings: PretrainSettings) -> list[Any]:
    """Returns what trains the model: AdamW, or Muon for the matrices of the layers beside AdamW for embeddings and norms."""
    import torch

    def adamw(parameters: list[Any]) -> Any:
        return torch.optim.AdamW(parameters, lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=True)

    if settings.optimizer == "adamw":
        return [adamw(list(model.parameters()))]
    matrices = [p for name, p in model.model.named_parameters() if p.ndim == 2 and name != "embed_tokens.weight"]
    inner = {id(p) for p in matrices}
    muon = torch.optim.Muon(matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw([p for p in model.parameters() if id(p) not in inner])]


def pretrain(settings: PretrainSettings, folder: Path, *, log: Callable[[str], None] = print, progress: Any = None) -> Path:
    """Trains the model, or goes on where an earlier call was stopped, and returns the folder that holds it with tokenizer and card.

    Args:
        settings: What to make.
        folder: Where to: `work/` in it holds the state of an unfinished run.
        log: Gets a line now and then.
        progress: A `notebook.Progress` that is moved on.
    """
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with lock(folder.parent / f".{folder.name}.lock", lambda who: log(f"waiting for {who}, which makes {folder}")):
        return _pretrain(settings, folder, log, progress)


def _pretrain(settings: PretrainSettings, folder: Path, log: Callable[[str], None], progress: Any) -> Path:
    import torch

    from pbb_helpers.training.loss import autocast, loss

    torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    last = _last_checkpoint(folder / "work", settings)  # before anything in the folder is touched
    tokenizer = _made_tokenizer(folder, settings)
    model = new_model(tokenizer, settings).to(device)
    trained_by = optimizers(model, settings)
    state: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0, "curve": []}
    state = _resume(last, model, trained_by) if last else state
    rates = [(group, group["lr"]) for optimizer in trained_by for group in optimizer.param_groups]
    asked = [kind for kind, share in settings.mix.families.items() if share]
    mix = settings.mix
    questions = held_out_questions(settings.questions, language=mix.language > 0, families=asked, calls=mix.calls > 0)
    plain, start, tokens = model.model, time.monotonic() - state["seconds"], state["tokens"]
    compiled = torch.compile(plain, dynamic=True) if settings.compile else plain
    dtype = getattr(torch, settings.dtype)
    for index, rows in windows(folder, settings, state["step"] // WINDOW) if state["step"] < settings.steps else ():
        model.model = compiled
        for offset, batch in enumerate(map(collate, rows)):
            step = index * WINDOW + offset
            if step >= settings.steps:
                break
            if step < state["step"]:  # done before: a finished run ended within this window and is prolonged
                continue
            for group, peak in rates:
                group["lr"] = peak * schedule(step, settings)
            with autocast(device, dtype):
                value = loss(model, batch.to(device))
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            for optimizer in trained_by:
                optimizer.step()
                optimizer.zero_grad()
            tokens += batch.tokens
        step = min((index + 1) * WINDOW, settings.steps)
        model.model = plain
        seconds = time.monotonic() - start
        log(f"step {step:,} of {settings.steps:,}, {tokens / 1e6:.1f}M tokens, loss {value.item():.4f}, {seconds / 60:.1f} min, "
            f"{seconds / step * (settings.steps - step) / 60:.0f} min left")  # fmt: skip
        if progress is not None:
            progress.update(step, total=settings.steps, note=f"loss {value.item():.3f}")
        if step // settings.evaluate_every > (index * WINDOW) // settings.evaluate_every or step == settings.steps:
            accuracy = {mode: exact_match(model, tokenizer, some) for mode, some in questions.items()}
            state["curve"].append({"step": step, "tokens": tokens, "loss": value.item(), **accuracy})
            log(f"in context, n = {settings.questions}: {accuracy}")
            state |= {"step": step, "tokens": tokens, "seconds": seconds, "fixed": _fixed(settings)}
            _checkpoint(folder / "work", model, trained_by, state)
    return _finish(folder, model, settings, state)


def _checkpoint(folder: Path, model: Any, trained_by: list[Any], state: dict[str, Any]) -> None:
    """Writes model, optimizers and progress next to the last good state, seals it, then puts it in its place."""
    from safetensors.torch import save_file

    fresh, old = folder.with_name("work.new"), folder.with_name("work.old")
    with plain_errors(folder):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        model.save_pretrained(fresh, save_original_format=False)  # under the names that the model has in memory: it is read back as it is
        moments = {
            f"{which}.{i}.{key}": value.contiguous()
            for which, optimizer in enumerate(trained_by)
            for i, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }
        save_file(moments, fresh / "optimizer.safetensors")
        (fresh / "state.json").write_text(json.dumps(state))
        write_manifest(fresh, sorted(fresh.iterdir()), CHECKPOINT)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)  # deleting it in its place would leave half of it to a run that is killed here
        os.replace(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)


def _made_tokenizer(folder: Path, settings: PretrainSettings) -> Any:
    """Returns the tokenizer of the settings after putting its files into `folder`, each whole."""
    with plain_errors(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".tokenizer.") as fresh:
        tokenizer = build_tokenizer(Path(fresh), mix=settings.mix, bpe_size=settings.bpe_size)
        for path in Path(fresh).iterdir():
            os.replace(path, folder / path.name)
    return tokenizer


def _fixed(settings: PretrainSettings) -> dict[str, Any]:
    """Returns the settings that a run keeps when it goes on: all but its length, its decay, and what changes nothing that is learned."""
    free = ("name", "steps", "decay_share", "threads", "compile", "evaluate_every")
    return json.loads(json.dumps({name: value for name, value in asdict(settings).items() if name not in free}))


def _last_checkpoint(folder: Path, settings: PretrainSettings) -> Path | None:
    """Returns where the last whole checkpoint lies, None where there is none.

    Raises:
        UsageError: It is damaged, of another run, or beyond the steps that are asked for.
    """
    # A run that was killed between two renames has left its newest state beside the place, or the one before.
    found = next((place for place in (folder, folder.with_name("work.new"), folder.with_name("work.old")) if place.exists()
                  and (place == folder or check_manifest(place, CHECKPOINT) is None)), None)  # fmt: skip
    if found is None:
        return None
    if damage := check_manifest(found, CHECKPOINT):
        raise UsageError(f"{damage.path} {damage.why}; delete {found} to begin anew: hours of training are in it, so that is left to you")
    state = json.loads((found / "state.json").read_text())
    before, now = state["fixed"], _fixed(settings)
    before["mix"] = json.loads(json.dumps(asdict(Mix()))) | before["mix"]  # of a version that knew fewer shares
    for name in before:
        if before[name] != now[name]:
            raise UsageError(f"{folder} holds a run with {name} {before[name]}, not {now[name]}; take another folder or delete this one")
    if settings.steps < state["step"]:
        raise UsageError(
            f"{folder} holds a run of {state['step']:,} steps, and {settings.steps:,} are asked for; take another folder or delete this one"
        )
    return found


def _resume(found: Path, model: Any, trained_by: list[Any]) -> dict[str, Any]:
    """Loads a checkpoint into model and optimizers and returns its state."""
    from safetensors.torch import load_file

    state = json.loads((found / "state.json").read_text())
    model.load_state_dict(load_file(found / "model.safetensors"), strict=False)  # the tied head is not stored
    moments: list[dict[int, dict[str, Any]]] = [{} for _ in trained_by]
    for key, value in load_file(found / "optimizer.safetensors").items():
        which, index, name = key.split(".", 2)
        moments[int(which)].setdefault(int(index), {})[name] = value
    for optimizer, its in zip(trained_by, moments, strict=True):
        optimizer.load_state_dict({"state": its, "param_groups": optimizer.state_dict()["param_groups"]})
    return state


def _finish(folder: Path, model: Any, settings: PretrainSettings, state: dict[str, Any]) -> Path:
    """Saves the weights in bfloat16, and the card that says how they came about."""
    import torch

    fresh = folder / "work.weights"
    with plain_errors(folder):
        model.to(torch.bfloat16).save_pretrained(fresh)
        for path in fresh.iterdir():
            os.replace(path, folder / path.name)  # whole or absent
        fresh.rmdir()
        last = state["curve"][-1]
        card = {
            "name": settings.name,
            **({"note": NOTES[settings.name]} if settings.name in NOTES else {}),
            "parameters": sum(p.numel() for p in model.parameters()),
            "sha256": hash_files(folder),
            "tokens": state["tokens"],
            "hours": round(state["seconds"] / 3600, 2),
            "hardware": f"{provenance.hardware_line(provenance.hardware())}, {settings.threads} thread{'s' if settings.threads > 1 else ''}",
            "in_context": {mode: accuracy for mode, accuracy in last.items() if mode not in ("step", "tokens", "loss")},
            "in_context_n": settings.questions,
            "tokens_read": tokens_read(folder, settings),
            "settings": asdict(settings),
            "curve": state["curve"],
        }
        write_text(folder / "card.json", json.dumps(card, indent=1) + "\n")
    return folder


def main(name: str = "pbb-small", folder: Path | None = None, **changes: Any) -> Path:
    """Makes a model: that of the ladder if `name` is one of them; `changes` are fields of `PretrainSettings` or `Mix`.

    Raises:
        UsageError: There is no such setting, or the name cannot name a folder.
    """
    known, mixed = PretrainSettings.__dataclass_fields__, Mix.__dataclass_fields__
    for setting in changes:
        if setting not in (*known, *mixed):
            raise did_you_mean("setting", setting, (*known, *mixed))
    mix = {setting: changes.pop(setting) for setting in list(changes) if setting in mixed}
    settings = replace(LADDER.get(name) or PretrainSettings(name=plain_name(name, "model name")), **changes)
    settings = replace(settings, mix=replace(settings.mix, **mix))
    return pretrain(settings, folder or made_root() / name, log=lambda line: print(line, flush=True))
