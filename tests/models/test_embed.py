import torch
import torch.nn.functional as F

from idlm_ds.models.embed import SoftEmbedding, TimeEmbedding, embedded
from tests import mixtures

from ..tolerances import assert_close

V, D = 7, 4


def embedding(generator: torch.Generator) -> SoftEmbedding:
    made = SoftEmbedding(V, D)
    with torch.no_grad():
        made.embedding.normal_(generator=generator)
    return made


def mixed(embed: SoftEmbedding, scores: torch.Tensor) -> torch.Tensor:
    x = mixtures.of_rows(scores.flatten(0, 1), tuple(scores.shape[:2]))
    return embedded(embed, x)


def test_soft_input_is_the_mean_embedding_under_its_softmax(generator):
    embed = embedding(generator)
    scores = torch.randn(2, 3, V, generator=generator)
    expected = torch.einsum("blv,vd->bld", scores.softmax(-1), embed.embedding)
    assert_close(mixed(embed, scores).detach(), expected.detach())


def test_sure_scores_equal_the_look_up_whatever_their_offset(generator):
    embed = embedding(generator)
    tokens = torch.randint(0, V, (2, 5), generator=generator)
    scores = 200.0 * F.one_hot(tokens, V) + 50
    assert_close(mixed(embed, scores).detach(), embed(tokens).detach())
    assert embed(tokens)[1, 2].equal(embed.embedding[tokens[1, 2]])


def test_soft_input_passes_a_gradient_to_its_scores(generator):
    embed = embedding(generator)
    scores = torch.randn(1, 2, V, generator=generator, dtype=torch.float32).requires_grad_()
    direction = torch.randn(D, generator=generator)
    (mixed(embed, scores) @ direction).sum().backward()
    p, value = scores.detach().softmax(-1), embed.embedding.detach() @ direction
    assert_close(scores.grad, p * (value - (p * value).sum(-1, keepdim=True)))


def test_time_is_shown_as_cosines_then_sines_of_the_unscaled_noise():
    embed = TimeEmbedding(8)
    shown = []
    embed.mlp = torch.nn.Sequential(torch.nn.Linear(256, 8))
    embed.mlp.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    sigma = torch.tensor([0.0, 0.7, 6.9])
    embed(sigma)
    (waves,) = shown
    frequencies = torch.tensor([10_000 ** (-k / 128) for k in range(128)])
    assert_close(
        waves,
        torch.cat([(sigma[:, None] * frequencies).cos(), (sigma[:, None] * frequencies).sin()], -1),
    )
