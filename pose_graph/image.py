"""From a picture to 29 points: a ResNet finds keypoints and features, the graph networks do the rest.

As in HOPE-Net and JHOPE: the encoder's pooled features give a first guess of the keypoints by one linear layer, stand
beside them at every node, and the keypoint graph corrects the guess. The ResNet is that of `transformers`
(``pip install 'regrasp[image]'``), which needs no torchvision. No weights ship: train, or load your own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .graph import NODES
from .lifting import View, place, view_of
from .network import UNIT, LiftConfig, LiftNet, LiftOutput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, which ResNets are trained on."""


@dataclass(frozen=True)
class ImageConfig:
    """Encoder and lifting network."""

    hidden_sizes: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (1, 1, 1, 1)
    """blocks of each stage; (1, 1, 1, 1) of basic blocks is HOPE-Net's ResNet-10"""
    features: int = 64
    """numbers that each node gets to know of the picture"""
    lift: LiftConfig = field(default_factory=LiftConfig)


@dataclass(frozen=True)
class Seen:
    """What the network makes of ``B`` pictures."""

    first: Tensor
    """(B, 29, 2) pixels, the encoder's guess"""
    keypoints: Tensor
    """(B, 29, 2) pixels, corrected by the graph"""
    points: Tensor
    """(B, 29, 3) metres, camera frame"""
    output: LiftOutput
    view: View


class ImageLift(nn.Module):
    """Pictures ``(B, 3, H, W)`` in [0, 1] to keypoints and points.

    Args:
        config: sizes.
        encoder: a folder with a saved ``ResNetModel``, to start from its weights; None to start from scratch.
    """

    def __init__(self, config: ImageConfig = ImageConfig(), encoder: str | Path | None = None) -> None:
        super().__init__()
        try:
            from transformers import ResNetConfig, ResNetModel
        except ImportError:
            raise ImportError("pictures need transformers: pip install 'regrasp[image]'.") from None
        if encoder is not None:
            self.encoder = ResNetModel.from_pretrained(str(encoder), local_files_only=True)
        else:
            sizes, depths = list(config.hidden_sizes), list(config.depths)
            basic = ResNetConfig(embedding_size=sizes[0], hidden_sizes=sizes, depths=depths, layer_type="basic")
            self.encoder = ResNetModel(basic)
        width = self.encoder.config.hidden_sizes[-1]
        self.config = config
        self.guess = nn.Linear(width, NODES * 2)
        self.squeeze = nn.Linear(width, config.features)
        self.lift = LiftNet(replace(config.lift, image_features=config.features))

    def forward(self, pictures: Tensor, cam_K: Tensor, box: Tensor | None = None) -> Seen:
        """See ``B`` pictures.

        Args:
            pictures: ``(B, 3, H, W)`` red, green, blue in [0, 1].
            cam_K: ``(3, 3)`` or ``(B, 3, 3)`` of these pictures (after cropping and scaling), pixels.
            box: ``(B, 3)`` metres, edges of the object's box, if known.

        Raises:
            ValueError: pictures of another shape.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(f"pictures: got shape {tuple(pictures.shape)}; expected (B, 3, H, W).")
        batch, _, height, width = pictures.shape
        shift, scale = (pictures.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        pooled = self.encoder(pixel_values=(pictures - shift) / scale).pooler_output.flatten(1)
        size = pictures.new_tensor([width, height])
        first = (self.guess(pooled).reshape(batch, NODES, 2) + 0.5) * size
        view = view_of(first, cam_K)
        features = torch.relu(self.squeeze(pooled))[:, None].expand(-1, NODES, -1)
        output = self.lift(torch.cat([view.features(box), features], 2))
        # The corrected keypoints are seen by the virtual camera: back to the picture.
        seen = output.keypoints * view.spread[:, None, None]
        image = torch.cat([seen, torch.ones_like(seen[..., :1])], 2) @ view.rotation @ cam_K.transpose(-1, -2)
        keypoints = image[..., :2] / image[..., 2:].clamp_min(1e-3)
        points = place(output, view) @ view.rotation
        return Seen(first, keypoints, points, output, view)


def image_loss(seen: Seen, keypoints: Tensor, points: Tensor, size: float) -> Tensor:
    """The peers' loss: 0.01 on the first keypoints, 0.01 on the corrected ones, 1 on the points.

    Args:
        keypoints: ``(B, 29, 2)`` true pixels.
        points: ``(B, 29, 3)`` true points, metres, camera frame.
        size: pixels that count as one, e.g. a twentieth of the picture.
    """

    def apart(a: Tensor, b: Tensor, unit: float) -> Tensor:
        return ((a - b) / unit).norm(dim=-1).mean()

    of_keypoints = apart(seen.first, keypoints, size) + apart(seen.keypoints, keypoints, size)
    return 0.01 * of_keypoints + apart(seen.points, points, UNIT)
