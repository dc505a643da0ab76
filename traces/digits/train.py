"""Train the digits network and write weights.safetensors. Needs torch, scikit-learn and safetensors.

Training is not reproducible across CPUs or thread counts: the committed weights are the reference,
and the trace is made from them by export.py, which needs no torch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from export import LAYERS, POOL_AFTER, load_images
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as F

SEED, EPOCHS, BATCH = 0, 60, 64


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, spec in LAYERS.items():
            if spec.op == "linear":
                self.add_module(name, nn.Linear(spec.C, spec.K))
            else:
                self.add_module(
                    name,
                    nn.Conv2d(spec.C, spec.K, spec.R, spec.stride, spec.padding, groups=spec.groups),
                )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name, spec in LAYERS.items():
            x = self.get_submodule(name)(x.flatten(1) if spec.op == "linear" else x)
            x = F.relu(x) if spec.activation == "relu" else x
            x = F.max_pool2d(x, 2) if name == POOL_AFTER else x
        return x


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Each image turned, scaled and moved by a little: 1438 images alone are too few."""
    count = len(images)
    angle = torch.empty(count).uniform_(-0.2, 0.2)
    scale = torch.empty(count).uniform_(0.9, 1.15)
    shift = torch.empty(count, 2, 1).uniform_(-0.2, 0.2)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(count, 2, 2)
    grid = F.affine_grid(torch.cat([turn * scale.view(-1, 1, 1), shift], 2), list(images.shape), False)
    return F.grid_sample(images, grid, align_corners=False)


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    images = load_images()
    x, y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(augmented(x[batch])), y[batch], label_smoothing=0.05).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        for split, sx, sy in (
            ("train", x, y),
            ("held-out", torch.from_numpy(images.test_x), torch.from_numpy(images.test_y)),
        ):
            right = int((network.eval()(sx).argmax(1) == sy).sum())
            print(f"{split}: {right} of {len(sy)} right, {100 * right / len(sy):.2f} %")
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_file(state, Path(__file__).with_name("weights.safetensors"))


if __name__ == "__main__":
    main()
