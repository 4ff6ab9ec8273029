"""Les réseaux communs : formes, état de départ, dépendances."""

import pytest
import torch
from torch import nn

from utils.nets import UNet, mlp, time_embedding


def _awake(net: nn.Module) -> nn.Module:
    """Le même réseau, ses couches nulles au départ tirées au sort."""
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return net.eval()


def test_mlp_has_one_activation_between_two_layers():
    net = mlp(3, 5, 7, 2)
    assert [type(layer) for layer in net] == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    assert net(torch.randn(4, 6, 3)).shape == (4, 6, 2)


@pytest.mark.parametrize("dim", [2, 32, 128])
def test_time_embedding_has_unit_hands(dim):
    out = time_embedding(torch.rand(5), dim)
    assert out.shape == (5, dim)
    torch.testing.assert_close(out[:, :dim // 2] ** 2 + out[:, dim // 2:] ** 2, torch.ones(5, dim // 2))
    torch.testing.assert_close(time_embedding(torch.zeros(1), dim)[0, dim // 2:], torch.zeros(dim // 2))


def test_time_embedding_tells_all_steps_apart():
    out = time_embedding(torch.arange(1001) / 1000, 128)
    gap = torch.cdist(out, out) + 10 * torch.eye(1001)
    assert gap.min() > 1


@pytest.mark.parametrize("n_in, n_out, size", [(1, 1, 28), (3, 1, 28), (2, 6, 28), (1, 1, 32)])
def test_unet_shapes(n_in, n_out, size):
    net = UNet(n_in, n_out, widths=(8, 16))
    assert net(torch.randn(5, n_in, size, size), torch.rand(5)).shape == (5, n_out, size, size)


def test_unet_starts_at_zero_but_learns_at_once():
    net = UNet(widths=(8, 16), classes=10)
    out = net(torch.randn(4, 1, 28, 28), torch.rand(4), torch.arange(4))
    assert not out.any()
    (out - 1).square().mean().backward()
    assert net.leave[2].weight.grad.any()                  # seule la dernière couche bouge d'abord


def test_unet_blocks_start_as_the_identity():
    net = UNet(widths=(8, 16))
    x = torch.randn(2, 8, 14, 14)
    torch.testing.assert_close(net.down[0](x, torch.randn(2, 128)), x)
    x = torch.randn(2, 16, 7, 7)
    torch.testing.assert_close(net.attention(x), x)


def test_unet_depends_on_time_and_on_the_label():
    net = _awake(UNet(widths=(8, 16), classes=10))
    x = torch.randn(1, 1, 28, 28).expand(3, -1, -1, -1)
    y = torch.tensor([3, 3, 3])
    by_time = net(x, torch.tensor([0.5, 0.5, 0.501]), y)
    torch.testing.assert_close(by_time[0], by_time[1])
    assert not torch.allclose(by_time[0], by_time[2])
    by_label = net(x, torch.full((3,), 0.5), torch.tensor([3, 4, 10]))
    assert not torch.allclose(by_label[0], by_label[1])
    torch.testing.assert_close(net(x[:1], torch.full((1,), 0.5)), by_label[2:])      # sans étiquette = « aucune »


def test_unet_without_labels_ignores_them():
    net = _awake(UNet(widths=(8, 16)))
    x, t = torch.randn(2, 1, 28, 28), torch.rand(2)
    torch.testing.assert_close(net(x, t), net(x, t, torch.tensor([1, 2])))


def test_unet_examples_do_not_mix():
    net = _awake(UNet(widths=(8, 16)))
    x, t = torch.randn(4, 1, 28, 28), torch.rand(4)
    torch.testing.assert_close(net(x, t)[1:2], net(x[1:2], t[1:2]), atol=1e-5, rtol=1e-4)


def test_unet_every_pixel_sees_the_whole_image():
    """L'attention à 7 × 7 : le coin rendu dépend du coin opposé."""
    net = _awake(UNet(widths=(8, 16)))
    x = torch.randn(1, 1, 28, 28, requires_grad=True)
    net(x, torch.full((1,), 0.5))[0, 0, 0, 0].backward()
    assert x.grad[0, 0, -1, -1] != 0


def test_unet_every_weight_is_used():
    net = _awake(UNet(widths=(8, 16), classes=10))
    net(torch.randn(4, 1, 28, 28), torch.rand(4), torch.tensor([0, 1, 2, 10])).square().sum().backward()
    unused = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not unused
