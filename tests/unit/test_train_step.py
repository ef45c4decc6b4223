"""What processes that train together tell each other in a step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pathosyn import train


def test_gradients_and_terms_are_added_up_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is a time at which one process waits for the other. A weight that no loss of this process reached may have a gradient elsewhere."""
    messages: list[int] = []

    def with_another(message: Tensor) -> None:
        """As if the other process had sent ones."""
        messages.append(len(message))
        message += 1.0

    monkeypatch.setattr(torch.distributed, "all_reduce", with_another)
    moved, left = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))
    moved.grad = torch.arange(6.0).view(2, 3)
    terms = train._added_up([moved, left], torch.tensor([5.0, 7.0]))
    assert messages == [6 + 4 + 2]
    assert terms.tolist() == [6.0, 8.0] and torch.equal(moved.grad, torch.arange(6.0).view(2, 3) + 1.0)
    assert left.grad is not None and torch.equal(left.grad, torch.ones(4))
