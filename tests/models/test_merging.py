"""What is merged, and into what: ties, class tokens and registers, odd and even numbers of tokens."""

import pytest
import torch

from evovit_deploy.models.merging import follow, likeness, places, weights
from evovit_deploy.models.vit.tome_recipe import most_merged


def merged_by_hand(scores, r, prefix):
    """(place of every token after the merge) of one image, by sorting lists."""
    count_a, count_b = scores.shape
    tokens = prefix + count_a + count_b
    a = [i for i in range(prefix, tokens) if i % 2 == 0]
    b = [i for i in range(prefix, tokens) if i % 2]
    best = {i: max(range(count_b), key=lambda j: (float(scores[n, j]), -j)) for n, i in enumerate(a)}
    chosen = sorted(a, key=lambda i: (-float(scores[a.index(i), best[i]]), i))[:r]
    order = [*range(prefix), *(i for i in a if i not in chosen), *b]
    return [order.index(b[best[i]] if i in chosen else i) for i in range(tokens)]


@pytest.mark.parametrize("prefix", [1, 2, 5])
@pytest.mark.parametrize("patches", [7, 8, 9])
def test_places(prefix, patches):
    keys = torch.randn(3, prefix + patches, 4, generator=torch.Generator().manual_seed(patches))
    scores = likeness(keys, prefix)
    assert scores.shape[1] + scores.shape[2] == patches
    most = most_merged(prefix + patches, prefix)
    assert most == patches // 2
    for r in (1, most):
        place = places(scores, r, prefix)
        assert place.tolist() == [merged_by_hand(image, r, prefix) for image in scores]
        assert sorted(set(place[0].tolist())) == list(range(prefix + patches - r)), "every place is taken"


def test_likeness_is_the_cosine_of_even_and_odd_tokens():
    keys = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    scores = likeness(keys, 1)
    expected = torch.cosine_similarity(keys[:, 2::2, None], keys[:, None, 1::2], dim=-1)
    assert (scores - expected).abs().max() < 1e-6
    assert not likeness(torch.zeros(1, 9, 4), 1).any(), "keys of zeros are alike by 0, not by NaN"


def test_ties_go_to_the_earlier_token():
    place = places(torch.ones(1, 3, 3), 2, 1)  # A is 2, 4, 6; B is 1, 3, 5
    assert place.tolist() == [[0, 2, 2, 3, 2, 4, 1]]


def test_sizes_add_up_and_averages_are_by_size():
    place = torch.tensor([[0.0, 2.0, 2.0, 3.0, 1.0]])
    share, sizes = weights(place, torch.tensor([[1.0, 3.0, 1.0, 2.0, 1.0]]), 1)
    assert sizes.tolist() == [[1, 1, 4, 2]]
    assert share[0, 2].tolist() == [0, 0.75, 0.25, 0, 0]
    assert share[0, 3].tolist() == [0, 0, 0, 1, 0], "an unmerged token comes through unchanged"
    assert follow(torch.tensor([[4, 1, 2]]), place).tolist() == [[1, 2, 2]]
