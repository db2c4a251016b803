"""Loading says in one line what is wrong; tokens are those of training and generation alike; adapters train what they should."""

from __future__ import annotations

import copy
import http.server
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import NAMES, save_tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.lora.layer import Linear as LoraLinear
from safetensors.torch import load_file, save_file

from pbb_helpers.data.documents import Example
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.programs import UsageError
from pbb_helpers.training import model_files, models

SETTINGS = TrainSettings(rank=4, alpha=8, seed=3)
SEVERAL = ("blorptag", "xylotrim")  # names that no tiny tokenizer knows


def example(prompt: str = "Compute zibble(5).\n", completion: str = "x = 5 + 3 = 8\nreturn 8") -> Example:
    return Example("cot", "with_io", "zibble", prompt, completion, 5, "8", 1)


def one_line(spec: str) -> str:
    """Returns the error of loading `spec`, which must be one line and come at once."""
    started = time.monotonic()
    with pytest.raises(UsageError) as caught:
        models.load(spec, device="cpu")
    assert time.monotonic() - started < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def damaged(tiny_folder, tmp_path) -> Path:
    """Returns a copy of the tiny Llama's folder, to be damaged."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "damaged"))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Makes the hub unreachable and its cache an empty folder, which is returned."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


# --- loading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "hrm_text"])
def test_a_folder_loads_in_float32_ready_to_answer(tiny_folder, architecture):
    loaded = models.load(str(tiny_folder(architecture)), device="cpu")
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert loaded.model.config.model_type == architecture


def test_weights_saved_in_bfloat16_are_loaded_in_float32(tiny_llama, tmp_path):
    tiny_llama.model.to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_llama.tokenizer.save_pretrained(tmp_path)
    assert models.load(str(tmp_path), device="cpu").model.dtype == torch.float32


def test_the_key_follows_the_files_and_not_their_place(tiny_folder, damaged):
    key = models.load(str(tiny_folder("llama")), device="cpu").key
    assert models.load(str(damaged), device="cpu").key == key
    weights = load_file(damaged / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    assert models.load(str(damaged), device="cpu").key != key


def test_a_base_of_other_weights_in_memory_has_another_key(tiny_folder):
    """Else what was trained on weights in bfloat16 would pass for what was trained on them in float32."""
    folder = str(tiny_folder("llama"))
    keys = [models.load(folder, device="cpu", dtype=dtype).key for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    assert keys[0] == models.load(folder, device="cpu").key == model_files.hash_files(Path(folder))
    assert len(set(keys)) == 3


def test_a_shipped_model_is_found_by_name(tiny_folder, tmp_path, monkeypatch):
    shutil.copytree(tiny_folder("llama"), tmp_path / "pbb-tiny")
    (tmp_path / "pbb-tiny" / "card.json").write_text('{"version": "1"}')
    monkeypatch.setattr(model_files, "SHIPPED", tmp_path)
    assert models.shipped()["pbb-tiny"].facts == {"version": "1"}
    assert models.load("pbb-tiny", device="cpu").name == "pbb-tiny"
    assert "did you mean 'pbb-tiny'?" in one_line("pbb-tny")


def test_every_shipped_model_loads():
    for name in models.shipped():
        loaded = models.load(name, device="cpu")
        assert loaded.tokenizer.decode(loaded.tokenizer.encode("é = 5", add_special_tokens=False)) == "é = 5"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "unknown model ''"),
        ("no such model", "unknown model 'no such model'"),
        ("gpt2", "hub id (org/name)"),
        ("./no-such-folder", "does not exist"),
        ("~/no-such-folder-anywhere", "does not exist"),
        ("/no/such/folder", "neither does '/no/such'"),
        ("a/b/c", "does not exist"),
        ("pyproject.toml", "is a file"),
    ],
)
def test_a_mistyped_model_is_named_at_once(spec, says, offline, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert says in one_line(spec)


def test_a_mistyped_folder_beside_the_right_one_gets_a_hint(tiny_folder, tmp_path, offline, monkeypatch):
    shutil.copytree(tiny_folder("llama"), tmp_path / "checkpoints" / "mymodel")
    monkeypatch.chdir(tmp_path)
    assert models.load("checkpoints/mymodel", device="cpu")
    assert "did you mean 'mymodel'?" in one_line("checkpoints/mymodl")  # looks like a hub id, but its parent is a folder here


def test_an_unreachable_hub_is_one_line(offline):
    assert "hub cannot be reached" in one_line("someorg/somemodel")


def test_an_unknown_hub_id_is_one_line(offline, monkeypatch):
    from huggingface_hub import constants

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        assert "the hub knows no model 'someorg/somemodel'" in one_line("someorg/somemodel")
    finally:
        server.shutdown()


def test_a_cached_hub_model_needs_no_network(tiny_folder, offline):
    commit = "a" * 40
    repository = offline / "models--someorg--tiny"
    shutil.copytree(tiny_folder("qwen3"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert models.load("someorg/tiny", device="cpu").key == f"someorg/tiny@{commit}"


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def garble(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))


def lose_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def lose_eos(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nosuchthing"}')


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "model.safetensors is damaged"),
        (garble, "model.safetensors is damaged"),
        (only_pickle, "holds no *.safetensors"),
        (lose_a_shard, "model-2.safetensors is damaged or missing"),
        (lose_a_tensor, "lack 1 tensors, 'model.norm.weight'"),
        (another_shape, "cannot load a model from"),
        (lose_eos, "no eos_token"),
        (unknown_architecture, "nosuchthing"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds a JSON list"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot load a model from"),
        (lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"), "give its base model"),
    ],
)
def test_a_damaged_folder_is_named_in_one_line(damaged, damage, says, offline):
    damage(damaged)
    assert says in one_line(str(damaged))
    assert str(damaged) in one_line(str(damaged))


def test_code_in_a_folder_is_never_run(damaged, offline):
    config = json.loads((damaged / "config.json").read_text()) | {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"},
    }
    (damaged / "config.json").write_text(json.dumps(config))
    (damaged / "theirs.py").write_text(f"open({str(damaged / 'ran')!r}, 'w')\nclass TheirConfig: ...\nclass TheirModel: ...\n")
    one_line(str(damaged))
    assert not (damaged / "ran").exists()


def test_a_tokenizer_larger_than_the_model_is_refused(tiny_folder, damaged):
    for path in tiny_folder("qwen3").glob("*token*"):
        shutil.copy(path, damaged)
    assert "tokens but the model only" in one_line(str(damaged))


# --- text to tokens -----------------------------------------------------------------------------------------------------


def test_a_plain_prompt_has_one_bos_and_the_completion_one_eos(tiny_llama):
    tokenizer = tiny_llama.tokenizer
    prompt, completion = models.encode(tokenizer, example())
    assert prompt[0] == tokenizer.bos_token_id
    assert [*prompt, *completion].count(tokenizer.bos_token_id) == 1
    assert [*prompt, *completion].count(tokenizer.eos_token_id) == 1
    assert completion[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(prompt[1:] + completion[:-1]) == example().prompt + example().completion


def test_a_chat_prompt_is_a_user_message_without_thinking(tiny_qwen3):
    tokenizer = tiny_qwen3.tokenizer
    prompt, completion = models.encode(tokenizer, example())
    text = tokenizer.decode(prompt)
    assert text == "<|im_start|>user\nCompute zibble(5).\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert tokenizer.decode(completion) == example().completion + "<|im_end|>"


def test_an_eos_that_the_tokenizer_appends_is_taken_off(tiny_llama):
    from tokenizers import processors

    ends = [("<s>", 0), ("</s>", tiny_llama.tokenizer.eos_token_id)]
    tiny_llama.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    assert tiny_llama.tokenizer.eos_token_id not in models.encode_prompt(tiny_llama.tokenizer, "zibble")


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_the_tokenizer(tokenizers_by_name, architecture, text):
    tokenizer = tokenizers_by_name[architecture]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.fixture(scope="module")
def tokenizers_by_name(tiny_folder):
    from transformers import AutoTokenizer

    return {name: AutoTokenizer.from_pretrained(tiny_folder(name)) for name in ("llama", "qwen3")}


def test_names_of_several_tokens_are_told_apart(tiny_llama, tiny_qwen3):
    ids, several = models.name_tokens(tiny_llama.tokenizer, [*NAMES, *SEVERAL])
    assert [tiny_llama.tokenizer.decode([i]) for i in ids] == list(NAMES)
    assert several == list(SEVERAL)
    assert models.name_tokens(tiny_qwen3.tokenizer, SEVERAL) == ([], list(SEVERAL))


def test_a_name_token_with_a_space_before_it_counts_too(tiny_qwen3):
    tiny_qwen3.tokenizer.add_tokens([" kleb"])
    ids, several = models.name_tokens(tiny_qwen3.tokenizer, ["kleb"])
    assert [tiny_qwen3.tokenizer.decode([i]) for i in ids] == [" kleb"]
    assert several == []


# --- adapters -----------------------------------------------------------------------------------------------------------


def with_name(loaded, name: str = "zibble"):
    """Returns the loaded model; its tokenizer knows `name` as one token, for models that have spare rows."""
    if not models.name_tokens(loaded.tokenizer, [name])[0]:
        loaded.tokenizer.add_tokens([name])
        loaded.model.resize_token_embeddings(len(loaded.tokenizer), mean_resizing=False)
    return loaded


def train_a_step(model, loaded, text: str = "zibble(5) returns zibble", steps: int = 1) -> None:
    ids = torch.tensor([loaded.tokenizer.encode(text)])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()


def logits(model, loaded, text: str = "quorn(7) zibble = 3") -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([loaded.tokenizer.encode(text)]), use_cache=False).logits


@pytest.fixture(params=["llama", "qwen3", "hrm_text"])
def loaded(request, tiny_folder):
    """Returns either tiny model (tied, and untied with grouped-query attention); "zibble" and "quorn" are one token each."""
    loaded = models.load(str(tiny_folder(request.param)), device="cpu")
    return with_name(with_name(loaded), "quorn")


def test_lora_is_on_every_linear_layer_but_the_head(loaded):
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    linear = {name for name, module in adapted.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert len(linear) == 2 * (8 if "hrm_text" in loaded.name else 7), "attention of HrmText has a gate"
    assert not any("lm_head" in name or "embed" in name for name in linear)
    trainable = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("lora_" in name or models.NAME_ROWS in name for name in trainable)


def test_an_adapter_at_first_changes_nothing(loaded):
    before = logits(loaded.model, loaded)
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    assert torch.equal(logits(adapted, loaded), before)


def test_training_moves_the_embeddings_of_the_names_and_no_others(loaded):
    base = loaded.model.get_input_embeddings().weight.detach().clone()
    head = loaded.model.get_output_embeddings().weight.detach().clone()
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    train_a_step(adapted, loaded)
    plain = models.merged(adapted)
    (row,), _ = models.name_tokens(loaded.tokenizer, ["zibble"])
    for old, new in ((base, plain.get_input_embeddings().weight), (head, plain.get_output_embeddings().weight)):
        assert (new != old).any(dim=1).nonzero().flatten().tolist() == [row]


def test_a_tied_head_sees_the_trained_embeddings_before_and_after_merging(tiny_llama):
    adapted = models.add_adapter(tiny_llama.model, SETTINGS, ["zibble"], tiny_llama.tokenizer)
    train_a_step(adapted, tiny_llama, steps=3)
    (row,), _ = models.name_tokens(tiny_llama.tokenizer, ["zibble"])
    rows = next(p for name, p in adapted.named_parameters() if models.NAME_ROWS in name)
    hidden = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    score = adapted.get_base_model().lm_head(hidden)[0, row]
    assert torch.allclose(score, hidden[0] @ rows[0], atol=1e-5)
    plain = models.merged(adapted)
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    assert torch.equal(plain.lm_head.weight[row], rows[0])


def test_names_can_be_left_frozen(loaded):
    settings = TrainSettings(rank=4, train_names=False)
    adapted = models.add_adapter(loaded.model, settings, ["zibble"], loaded.tokenizer)
    assert not any(models.NAME_ROWS in name for name, _ in adapted.named_parameters())


def test_names_of_several_tokens_are_counted_in_the_log(loaded, caplog):
    with caplog.at_level("INFO"):
        models.add_adapter(loaded.model, SETTINGS, ["zibble", *SEVERAL], loaded.tokenizer)
    assert "2 of 3 names are several tokens" in caplog.text


def test_initial_weights_hang_on_the_seed_alone(tiny_folder):
    def first(seed: int, draws: int) -> torch.Tensor:
        torch.manual_seed(draws)
        loaded = models.load(str(tiny_folder("llama")), device="cpu")
        adapted = models.add_adapter(loaded.model, TrainSettings(rank=4, seed=seed), ["zibble"], loaded.tokenizer)
        after = torch.rand(1)
        torch.manual_seed(draws)
        assert torch.equal(after, torch.rand(1)), "the global generator was moved"
        return next(p for name, p in adapted.named_parameters() if "lora_A" in name)

    assert torch.equal(first(1, draws=5), first(1, draws=6))
    assert not torch.equal(first(1, draws=5), first(2, draws=5))


def test_a_saved_adapter_comes_back_to_the_bit(loaded, tiny_folder, tmp_path):
    base = copy.deepcopy(loaded.model)
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    train_a_step(adapted, loaded)
    models.save_adapter(adapted, tmp_path / "a")
    again = models.load_adapter(base, tmp_path / "a")
    assert torch.equal(logits(again, loaded), logits(adapted, loaded))
    assert not any(p.requires_grad for p in again.parameters())
    models.save_adapter(again, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_peft_itself_reads_what_was_saved(loaded, tmp_path):
    from peft import PeftModel

    base = copy.deepcopy(loaded.model)
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    train_a_step(adapted, loaded)
    models.save_adapter(adapted, tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base, tmp_path), loaded), logits(adapted, loaded))


def test_training_goes_on_from_a_saved_adapter_with_more_names(loaded, tmp_path):
    base = copy.deepcopy(loaded.model)
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    train_a_step(adapted, loaded)
    models.save_adapter(adapted, tmp_path)
    again = models.load_adapter(base, tmp_path, trainable=True, names=["quorn", "zibble"], tokenizer=loaded.tokenizer)
    assert torch.equal(logits(again, loaded), logits(adapted, loaded))
    rows = [p for name, p in again.named_parameters() if models.NAME_ROWS in name]
    assert all(p.requires_grad and len(p) == 2 for p in rows)
    before = [p.detach().clone() for p in rows]
    train_a_step(again, loaded, "quorn(3) is quorn")
    assert all((p[1] != old[1]).any() for p, old in zip(rows, before, strict=True))
    models.save_adapter(again, tmp_path / "stage2")
    (rows_saved,) = {len(t) for k, t in load_file(tmp_path / "stage2" / models.ADAPTER_WEIGHTS).items() if models.NAME_ROWS in k}
    assert rows_saved == 2


def test_an_adapter_without_names_can_gain_some(loaded, tmp_path):
    base = copy.deepcopy(loaded.model)
    adapted = models.add_adapter(loaded.model, SETTINGS, [], loaded.tokenizer)
    train_a_step(adapted, loaded)
    models.save_adapter(adapted, tmp_path)
    again = models.load_adapter(base, tmp_path, trainable=True, names=["quorn"], tokenizer=loaded.tokenizer)
    assert torch.equal(logits(again, loaded), logits(adapted, loaded))
    assert any(p.requires_grad for name, p in again.named_parameters() if models.NAME_ROWS in name)


def test_full_finetuning_trains_all_and_comes_back_to_the_bit(loaded, tmp_path):
    base = copy.deepcopy(loaded.model)
    model = models.add_adapter(loaded.model, TrainSettings(method="full"), ["zibble"], loaded.tokenizer)
    assert all(p.requires_grad for p in model.parameters())
    train_a_step(model, loaded)
    models.save_adapter(model, tmp_path)
    again = models.load_adapter(base, tmp_path, trainable=True)
    assert torch.equal(logits(again, loaded), logits(model, loaded))
    assert all(p.requires_grad for p in again.parameters())
    loaded.tokenizer.save_pretrained(tmp_path)
    assert torch.equal(logits(models.load(str(tmp_path), device="cpu").model, loaded), logits(model, loaded))


def test_merging_leaves_the_original_untouched(loaded):
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    train_a_step(adapted, loaded, steps=3)
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    plain = models.merged(adapted)
    assert not any("lora" in name for name, _ in plain.named_modules())
    assert torch.allclose(logits(plain, loaded), logits(adapted, loaded), atol=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in adapted.named_parameters())
    assert models.merged(plain) is plain


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_merging_into_a_bfloat16_base_rounds_once(tiny_folder, architecture):
    """Of weights as they are, in float32, plus BA: rounding either before the sum would lose much of a small BA."""
    loaded = models.load(str(tiny_folder(architecture)), device="cpu", dtype=torch.bfloat16)
    adapted = models.add_adapter(loaded.model, SETTINGS, ["zibble"], loaded.tokenizer)
    generator = torch.Generator().manual_seed(0)
    expected = {}
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLinear):
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            b.data = 0.1 * torch.randn(b.shape, generator=generator)
            assert a.dtype == b.dtype == torch.float32, "the adapters are"
            place = name.removeprefix("base_model.model.") + ".weight"
            expected[place] = (layer.base_layer.weight.float() + layer.scaling["default"] * (b @ a)).to(torch.bfloat16)
    plain = models.merged(adapted)
    weights = dict(plain.named_parameters())
    assert len(expected) == 14 and all(torch.equal(weights[name], weight) for name, weight in expected.items())
    assert {p.dtype for p in plain.parameters()} == {torch.bfloat16} and plain.model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_second_adapter_on_the_same_model_is_refused(loaded):
    adapted = models.add_adapter(loaded.model, SETTINGS, [], loaded.tokenizer)
    for model in (adapted, loaded.model):
        with pytest.raises(ValueError, match="has an adapter already"):
            models.add_adapter(model, SETTINGS, [], loaded.tokenizer)


def test_an_unknown_method_is_named(loaded):
    with pytest.raises(UsageError, match="unknown method 'loar'; did you mean 'lora'"):
        models.add_adapter(loaded.model, TrainSettings(method="loar"), [], loaded.tokenizer)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_adapter_is_named(tiny_llama, tmp_path, content):
    models.save_adapter(models.add_adapter(copy.deepcopy(tiny_llama.model), SETTINGS, [], tiny_llama.tokenizer), tmp_path)
    path = tmp_path / models.ADAPTER_WEIGHTS
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=r"adapter_model.safetensors is damaged or missing"):
        models.load_adapter(tiny_llama.model, tmp_path)


def test_an_adapter_of_another_model_is_refused(tiny_folder, tiny_llama, tmp_path):
    save_tiny("llama", tmp_path / "wide", hidden_size=48)
    save_tiny("llama", tmp_path / "deep", num_hidden_layers=3)
    for name in ("wide", "deep"):
        other = models.load(str(tmp_path / name), device="cpu")
        models.save_adapter(models.add_adapter(other.model, SETTINGS, [], other.tokenizer), tmp_path / name / "adapter")
        with pytest.raises(UsageError) as caught:
            models.load_adapter(copy.deepcopy(tiny_llama.model), tmp_path / name / "adapter")
        assert "adapter" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError):
            models.load_adapter(copy.deepcopy(tiny_llama.model), tmp_path / name)


def test_an_empty_folder_is_no_checkpoint(tiny_llama, tmp_path):
    with pytest.raises(UsageError, match="it is no checkpoint"):
        models.load_adapter(tiny_llama.model, tmp_path)
