"""VGG16, LPIPS and I3D from files: real modules of the right layout, with random weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from infotok_core.errors import WeightsError
from infotok_core.fvd import ClipFeatures
from infotok_core.perceptual import Lpips, PerceptualLoss, VggFeatures
from infotok_core.weight_files import archive_damage

# torchvision's VGG16 "features", written out: channels of each convolution, "M" for a pooling.
LAYOUT = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
SHIFT, SCALE = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

TAPS = (3, 8, 15, 22, 29)
WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)


class Vgg16(nn.Module):
    """As torchvision builds it, without most of the classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for item in LAYOUT:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU(inplace=False)]
                channels = item
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(4, 2))

    def taps(self, frames: Tensor) -> list[Tensor]:
        x = (frames - SHIFT.view(1, 3, 1, 1)) / SCALE.view(1, 3, 1, 1)
        found: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                found.append(x)
            if index == TAPS[-1]:
                break
        return found


@pytest.fixture(scope="module")
def vgg() -> Vgg16:
    torch.manual_seed(3)
    return Vgg16().requires_grad_(False)


@pytest.fixture(scope="module")
def vgg_file(vgg: Vgg16, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(vgg.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def heads() -> dict[str, Tensor]:
    torch.manual_seed(4)
    widths = (64, 128, 256, 512, 512)
    return {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(widths)}


@pytest.fixture(scope="module")
def heads_file(heads: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "heads.safetensors"
    safetensors.torch.save_file(heads, path)
    return path


@pytest.fixture(scope="module")
def clips() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return tuple(torch.rand(2, 2, 3, 3, 24, 32, generator=generator).mul(2).sub(1).unbind(0))


def test_features_are_those_of_the_layout_of_torchvision(vgg: Vgg16, vgg_file: Path):
    frames = torch.rand(2, 3, 24, 32) * 2 - 1
    found = VggFeatures.load(vgg_file)(frames)
    for mine, theirs in zip(found, vgg.taps(frames), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_loss_is_the_published_sum_over_layers(
    vgg: Vgg16, vgg_file: Path, clips: tuple[Tensor, Tensor]
):
    video, other = clips
    loss = PerceptualLoss.load(vgg_file)(video, other)
    frames = [clip.transpose(1, 2).reshape(-1, 3, 24, 32) for clip in clips]
    pairs = zip(WEIGHTS, vgg.taps(frames[0]), vgg.taps(frames[1]), strict=True)
    wanted = sum(weight * (a - b).abs().mean() for weight, a, b in pairs)
    assert loss.shape == ()
    torch.testing.assert_close(loss, wanted)


def test_its_gradient_reaches_the_reconstruction_alone(vgg_file: Path, clips: tuple[Tensor, ...]):
    loss = PerceptualLoss.load(vgg_file)
    video, other = (clip[:1].clone().requires_grad_() for clip in clips)
    loss(video, other).backward()
    assert other.grad is not None
    assert other.grad.abs().sum() > 0
    assert video.grad is None
    assert all(not parameter.requires_grad for parameter in loss.parameters())


def test_lpips_is_its_definition(
    vgg: Vgg16, vgg_file: Path, heads_file: Path, heads: dict[str, Tensor]
):
    first, second = torch.rand(2, 4, 3, 16, 24).mul(2).sub(1).unbind(0)
    wanted = torch.zeros(4)
    for index, (a, b) in enumerate(zip(vgg.taps(first), vgg.taps(second), strict=True)):
        difference = nn.functional.normalize(a, dim=1) - nn.functional.normalize(b, dim=1)
        weighted = nn.functional.conv2d(difference**2, heads[f"lin{index}.model.1.weight"])
        wanted += weighted.mean(dim=(1, 2, 3))
    metric = Lpips.load(vgg_file, heads_file)
    torch.testing.assert_close(metric(first, second), wanted)
    assert metric(first, first).tolist() == [0.0] * 4


def test_frames_too_small_for_four_poolings_are_refused(vgg_file: Path):
    with pytest.raises(ValueError, match="at least 16 x 16"):
        VggFeatures.load(vgg_file)(torch.zeros(1, 3, 15, 64))


def _without(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key != name}


def test_files_that_do_not_fit_are_named_with_the_cause(
    vgg: Vgg16, vgg_file: Path, heads: dict[str, Tensor], tmp_path: Path
):
    small = {name: value for name, value in vgg.state_dict().items() if "features.0" in name}
    cases = {
        "short.pth": (small, "features.2.weight is missing"),
        "shape.pth": (
            vgg.state_dict() | {"features.0.bias": torch.zeros(65)},
            r"features.0.bias has shape \[65\], not \[64\]",
        ),
        "nan.pth": (
            vgg.state_dict() | {"features.0.bias": torch.full((64,), torch.nan)},
            "features.0.bias is not finite",
        ),
        "list.pth": ([1, 2], "holds a list, not named tensors"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        torch.save(content, path)
        with pytest.raises(WeightsError, match=f"{name}: .*{message}"):
            PerceptualLoss.load(path)
    safetensors.torch.save_file(_without("lin3.model.1.weight", heads), tmp_path / "heads")
    (tmp_path / "heads").rename(tmp_path / "heads.safetensors")
    with pytest.raises(WeightsError, match=r"heads.safetensors: lin3.model.1.weight is missing"):
        Lpips.load(vgg_file, tmp_path / "heads.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_hold_no_tensors_are_named(tmp_path: Path, suffix: str):
    path = tmp_path / f"vgg{suffix}"
    with pytest.raises(WeightsError, match=f"vgg{suffix}: does not exist"):
        VggFeatures.load(path)
    for content in (b"", b"not a file of weights at all"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=f"vgg{suffix}: "):
            VggFeatures.load(path)


class ToyI3d(nn.Module):
    """Called as I3D is, with three features to tell clips apart."""

    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        assert resize
        assert return_features
        if rescale:
            x = 2 * x / 255 - 1
        clips = x.flatten(1)
        return torch.stack([clips.mean(1), clips.std(1), clips[:, 0]], 1)


class Flat(nn.Module):
    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        return x.flatten()


class Other(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def _scripted(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        # TorchScript is what such files are.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


def test_clip_features_come_from_torchscript(tmp_path: Path, clips: tuple[Tensor, Tensor]):
    features = ClipFeatures.load(_scripted(ToyI3d(), tmp_path / "i3d.pt"))(clips[0])
    assert features.dtype == torch.float64
    assert features.shape == (2, 3)
    torch.testing.assert_close(features[:, 0].float(), clips[0].flatten(1).mean(1))


@pytest.mark.parametrize(
    ("module", "message"),
    [(Flat(), "one vector per clip"), (Other(), "cannot be called as I3D is")],
)
def test_another_network_is_refused_by_name(
    module: nn.Module, message: str, tmp_path: Path, clips: tuple[Tensor, Tensor]
):
    features = ClipFeatures.load(_scripted(module, tmp_path / "other.pt"))
    with pytest.raises(WeightsError, match=f"other.pt: .*{message}"):
        features(clips[0])


def test_what_is_no_torchscript_is_named(tmp_path: Path, vgg_file: Path):
    with pytest.raises(WeightsError, match=r"none.pt: does not exist"):
        ClipFeatures.load(tmp_path / "none.pt")
    with pytest.raises(WeightsError, match=r"vgg16.pth: is no TorchScript program"):
        ClipFeatures.load(vgg_file)


def test_flipped_bits_are_no_weights(tmp_path: Path, vgg: Vgg16, vgg_file: Path):
    network = nn.Linear(8, 8)
    scripted = _scripted(network, tmp_path / "i3d.pt")
    convolution = next(vgg.parameters())
    with pytest.raises(WeightsError, match=r"i3d.pt: .*does not match its checksum"):
        ClipFeatures.load(_flipped(scripted, network.weight, scripted))
    with pytest.raises(WeightsError, match=r"vgg.pth: .*does not match its checksum"):
        VggFeatures.load(_flipped(vgg_file, convolution, tmp_path / "vgg.pth"))


def test_half_of_an_archive_is_called_so(tmp_path: Path, vgg_file: Path):
    (tmp_path / "vgg.pth").write_bytes(vgg_file.read_bytes()[:-40])
    with pytest.raises(WeightsError, match=r"vgg.pth: is truncated: the end of the zip archive"):
        VggFeatures.load(tmp_path / "vgg.pth")


def test_a_flipped_bit_anywhere_behind_the_data_is_damage_or_nothing(tmp_path: Path):
    file = tmp_path / "tiny.pth"
    torch.save({"a": torch.ones(2)}, file)
    data = file.read_bytes()
    for place in range(data.find(b"PK\x01\x02"), len(data)):
        for bit in (0x01, 0x08):
            flipped = bytearray(data)
            flipped[place] ^= bit
            file.write_bytes(flipped)
            said = archive_damage(file)
            assert said is None or said.startswith(("damaged archive: ", "is truncated: "))


def _flipped(file: Path, tensor: Tensor, to: Path) -> Path:
    data = bytearray(file.read_bytes())
    place = data.find(tensor.detach().numpy().tobytes())
    assert place > 0
    data[place + 3] ^= 0x01
    to.write_bytes(data)
    return to
