"""What a person would see: the perceptual loss of training, and LPIPS, from weights a user has.

Both look at frames through the convolutions of VGG16. No weights are shipped and none are fetched:
``vgg16`` in torchvision's layout (``features.0.weight`` ...) and the linear heads of LPIPS in that
of its authors (``lin0.model.1.weight`` ...) are read from files, ``.pth`` or ``.safetensors``.

Shapes: B clips, C = 3 colours, T frames, H rows, W columns, F frames of any clips, K channels.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from infotok_core.errors import WeightsError
from infotok_core.weight_files import archive_damage

__all__ = ["Lpips", "PerceptualLoss", "VggFeatures"]

_CHANNELS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Of each block. torchvision numbers convolutions, ReLUs and poolings through."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for pixels in [-1, 1], as LPIPS has them."""
_LAYER_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
_MIN_SIDE = 16
"""Four poolings halve a side."""


class VggFeatures(nn.Module):
    """Activations behind the last ReLU of each block of VGG16: relu1_2, 2_2, 3_3, 4_3, 5_3.

    Frozen; gradients flow through it to its input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        self._blocks: list[list[str]] = []
        index, channels = 0, 3
        for count, width in zip(_CONVOLUTIONS, _CHANNELS, strict=True):
            names: list[str] = []
            for _ in range(count):
                self.features[f"{index}"] = nn.Conv2d(channels, width, 3, padding=1)
                names.append(f"{index}")
                index, channels = index + 2, width
            self._blocks.append(names)
            index += 1
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(requires_grad=False)

    shift: Tensor
    scale: Tensor

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Weights of torchvision's ``vgg16``; those of its classifier are passed over.

        Raises:
            WeightsError: If the file is absent, damaged, or holds another network.
        """
        network = cls()
        _fill(network, _read(Path(path)), source=str(path), ignored="classifier.")
        return network

    def forward(self, frames_FCHW: Tensor) -> list[Tensor]:
        """Five activations ``[F, K, H / 2^i, W / 2^i]`` of frames in [-1, 1].

        Raises:
            ValueError: If frames are smaller than 16 x 16 pixels.
        """
        if min(frames_FCHW.shape[2:]) < _MIN_SIDE:
            raise ValueError(
                f"VGG16 needs frames of at least {_MIN_SIDE} x {_MIN_SIDE} pixels, not "
                f"{tuple(frames_FCHW.shape[2:])}"
            )
        x = (frames_FCHW - self.shift) / self.scale
        activations: list[Tensor] = []
        for block, names in enumerate(self._blocks):
            if block:
                x = nn.functional.max_pool2d(x, 2)
            for name in names:
                x = nn.functional.relu(self.features[name](x))
            activations.append(x)
        return activations


class PerceptualLoss(nn.Module):
    """The published training's perceptual term: weighted mean |f(x) - f(y)| over five layers.

    Neither normalised nor through linear heads: not LPIPS (facts section 6).
    """

    def __init__(self, features: VggFeatures) -> None:
        super().__init__()
        self.features = features

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """See `VggFeatures.load`.

        Raises:
            WeightsError: If the file is absent, damaged, or holds another network.
        """
        return cls(VggFeatures.load(path))

    def forward(self, video_BCTHW: Tensor, reconstruction_BCTHW: Tensor) -> Tensor:
        """A scalar, frame by frame; gradients reach the reconstruction alone.

        Args:
            video_BCTHW: In [-1, 1].
            reconstruction_BCTHW: Same shape; deliberately not clamped.
        """
        with torch.no_grad():
            wanted = self.features(_frames(video_BCTHW))
        found = self.features(_frames(reconstruction_BCTHW))
        loss = torch.zeros((), device=video_BCTHW.device)
        for weight, mine, other in zip(_LAYER_WEIGHTS, wanted, found, strict=True):
            loss = loss + weight * (mine.float() - other.float()).abs().mean()
        return loss


class Lpips(nn.Module):
    """LPIPS with VGG16 (version 0.1, linear heads): 0 for equal frames, larger is worse."""

    def __init__(self, features: VggFeatures) -> None:
        super().__init__()
        self.features = features
        for index, channels in enumerate(_CHANNELS):
            self.register_buffer(f"head{index}", torch.zeros(1, channels, 1, 1))

    @classmethod
    def load(cls, vgg: str | Path, heads: str | Path) -> Self:
        """Read both files.

        Args:
            vgg: See `VggFeatures.load`.
            heads: ``lin0.model.1.weight`` .. ``lin4.model.1.weight``, each ``[1, K, 1, 1]``, or the
                same as ``lin0.weight`` ..

        Raises:
            WeightsError: If a file is absent, damaged, or holds something else.
        """
        metric = cls(VggFeatures.load(vgg))
        found = {
            f"{name.removesuffix('.weight').removesuffix('.model.1')}.model.1.weight": tensor
            for name, tensor in _read(Path(heads)).items()
        }
        wanted = {
            f"lin{index}.model.1.weight": metric.get_buffer(f"head{index}")
            for index in range(len(_CHANNELS))
        }
        checked = _checked(wanted, found, source=str(heads))
        for name, buffer in wanted.items():
            buffer.copy_(checked[name])
        return metric

    @torch.inference_mode()
    def forward(self, first_FCHW: Tensor, second_FCHW: Tensor) -> Tensor:
        """Distance of each pair of frames in [-1, 1], ``[F]``."""
        pairs = zip(self.features(first_FCHW), self.features(second_FCHW), strict=True)
        total_F = torch.zeros(len(first_FCHW), device=first_FCHW.device)
        for index, (first, second) in enumerate(pairs):
            difference = (_unit(first) - _unit(second)).square()
            weighted = difference * self.get_buffer(f"head{index}")
            total_F = total_F + weighted.sum(dim=1).mean(dim=(1, 2))
        return total_F


def _frames(video_BCTHW: Tensor) -> Tensor:
    return video_BCTHW.transpose(1, 2).flatten(0, 1)


def _unit(features_FKHW: Tensor) -> Tensor:
    norm = features_FKHW.square().sum(dim=1, keepdim=True).sqrt()
    return features_FKHW / (norm + 1e-10)


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], *, source: str, ignored: str) -> None:
    found = {name: value for name, value in tensors.items() if not name.startswith(ignored)}
    network.load_state_dict(_checked(network.state_dict(), found, source=source))


def _checked(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """The tensors of ``found`` in float32, if they are exactly the wanted ones."""
    problems = [
        *(f"{name} is missing" for name in wanted if name not in found),
        *(f"{name} is unexpected" for name in found if name not in wanted),
        *(
            f"{name} has shape {list(found[name].shape)}, not {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ),
    ]
    if not problems:
        broken = [name for name, tensor in found.items() if not tensor.float().isfinite().all()]
        problems = [f"{name} is not finite" for name in broken]
    if problems:
        rest = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(source, "; ".join(problems[:3]) + rest)
    return {name: tensor.float() for name, tensor in found.items()}


def _read(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file; no pickled code is run."""
    try:
        # Files of older versions of torch are no archives, and have no checksums.
        damage = archive_damage(path)
        if damage is not None:
            raise WeightsError(str(path), damage)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(str(path), "does not exist") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(str(path), f"damaged or not safetensors: {error}") from error
    except pickle.UnpicklingError as error:
        # What torch says begins with advice to load it all the same, which nobody can follow here.
        raise WeightsError(str(path), "is not a file of tensors alone") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        first = (str(error).splitlines() or ["nothing in it"])[0]
        raise WeightsError(str(path), f"is not a file of tensors: {first}") from error
    if not isinstance(document, Mapping) or not document:
        raise WeightsError(str(path), f"holds a {type(document).__name__}, not named tensors")
    return {str(name): value for name, value in document.items() if isinstance(value, Tensor)}
