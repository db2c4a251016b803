"""Packed rows: the losses and gradients of separate rows, and the trap in them."""

from __future__ import annotations

import pytest
import torch

from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.training import models
from pbb_helpers.training.batches import collate, pack, side_by_side
from pbb_helpers.training.loss import loss
from pbb_helpers.training.parallel import part


def encoded(n: int) -> list[tuple[list[int], list[int]]]:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (n, 2), generator=g).tolist()
    return [tuple(torch.randint(3, 50, (length,), generator=g).tolist() for length in pair) for pair in lengths]  # type: ignore[misc]


def test_pack_by_hand():
    batch = pack([([5, 6], [7, 2]), ([8], [9, 2]), ([3, 4, 5], [6, 2])], 7)
    assert batch.input_ids.tolist() == [[3, 4, 5, 6, 5, 6, 7], [8, 9, 0, 0, 0, 0, 0]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4]]
    assert (batch.positions.tolist(), batch.targets.tolist()) == ([2, 3, 5, 6, 7, 8], [6, 2, 7, 2, 9, 2])
    assert batch.tokens == 9


def test_every_example_is_packed_once_into_rows_that_hold_it():
    rows = [*encoded(40), ([4] * 60, [2])]
    batch = pack(rows, 32)
    assert batch.input_ids.shape[1] == 60, "an example longer than a row has one of its own"
    assert sorted(batch.targets.tolist()) == sorted(collate(rows).targets.tolist())
    assert batch.tokens == collate(rows).tokens and len(batch) < len(rows) / 2


def test_packed_rows_are_refused_where_their_positions_would_be_lost():
    packed, plain = pack(encoded(4), 40), collate(encoded(4))
    for use in (lambda: part(packed, 0, 2), lambda: side_by_side([plain, packed])):
        with pytest.raises(ValueError, match="a batch of packed rows can be neither parted"):
            use()
    assert len(part(plain, 0, 2)) == 2 and len(side_by_side([plain, plain])) == 8


def gradients(model, batch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    value = loss(model, batch)
    value.backward()
    return value.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_qwen3"])
def test_examples_of_a_row_do_not_see_each_other(fixture, attention, request):
    loaded = request.getfixturevalue(fixture)
    loaded.model.set_attn_implementation(attention)
    model = models.add_adapter(loaded.model, TrainSettings(rank=4, alpha=8), (), loaded.tokenizer)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:  # zero at the start, and with it all other gradients
                p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    rows = encoded(12)
    value, grads = gradients(model, pack(rows, 40))
    expected, expected_grads = gradients(model, collate(rows))
    assert value == pytest.approx(expected, rel=1e-5)
    for name, grad in grads.items():
        limit = 1e-4 * float(expected_grads[name].abs().max())
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-3, atol=limit, msg=name)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_with_a_cache_they_would(tiny_llama, attention):
    """The trap that `loss` avoids; should transformers ever close it, this fails and may go."""
    tiny_llama.model.set_attn_implementation(attention)
    batch = pack(encoded(12), 40)
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    with torch.no_grad():
        apart, leaking = (tiny_llama.model(**inputs, use_cache=cached).logits.flatten(0, 1)[batch.positions] for cached in (False, True))
    assert (apart - leaking).abs().max() > 0.1
