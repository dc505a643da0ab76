"""accelsim.recipes: ResNet-50, and images in folders as ImageNet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import accelsim.torch  # noqa: E402
from accelsim import AccelsimError, open_workload  # noqa: E402
from accelsim.recipes import resnet50  # noqa: E402
from accelsim.recipes.choose import spread  # noqa: E402
from accelsim.recipes.classify import Classification  # noqa: E402
from accelsim.recipes.image_folder import ImageFiles, labelled_images  # noqa: E402
from accelsim.recipes.resnet50 import ResNet50  # noqa: E402

SYNSETS = ["n01440764", "n01443537", "n01484850"]


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 50)) -> Path:
    """Noise of width, height."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of two images, in folders."""
    (tmp_path / "val").mkdir()
    for seed in range(6):
        picture(tmp_path / "val" / SYNSETS[seed // 2] / f"{seed}.png", seed)
    return tmp_path / "val"


def small(images: Path, **options: Any) -> Classification:
    given = {"evaluation": images, "calibration": images, "classes": 3, "batch": 2, "resize": 36, "crop": 32}
    return resnet50(**{**given, **options})


# --- the model ----------------------------------------------------------------------------------------------


def test_the_model_has_the_published_parameters_and_macs() -> None:
    """25.56 M parameters and 4.09 G MACs at 224 x 224, by torchvision's table of its weights."""
    with torch.device("meta"):
        model = ResNet50().eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    assert sum(value.numel() for value in model.parameters()) == 25_557_032
    assert counter.get_total_flops() // 2 == 4_089_184_256
    state = model.state_dict()
    assert len(state) == 320
    assert state["layer2.0.downsample.0.weight"].shape == (512, 256, 1, 1)
    assert state["layer4.2.bn3.running_var"].shape == (2048,)
    strides = {
        name: module.stride for name, module in model.named_modules() if name.startswith("layer3.0.conv")
    }
    assert strides == {"layer3.0.conv1": (1, 1), "layer3.0.conv2": (2, 2), "layer3.0.conv3": (1, 1)}


def test_the_whole_recipe_with_random_weights(images: Path, tmp_path: Path) -> None:
    task = small(images)
    outputs = task.outputs(task.model)
    assert outputs.shape == (6, 3) and 0.05 < outputs.std() < 20
    assert set(task.metrics(outputs)) == {"top1", "top5"} and task.metrics(outputs)["top5"] == 100
    own = small(images, seed=1, weights=saved(task, tmp_path / "resnet50.pth"))
    assert np.array_equal(own.outputs(own.model), outputs)
    path = accelsim.torch.export(
        task.model, task.inputs, tmp_path / "net.safetensors", calibration=task.calibration()
    )
    layers = open_workload(path).layers
    assert len(layers) == 54
    with FlopCounterMode(display=False) as counter:
        task.model(task.inputs)
    assert sum(layer.geometry.macs for layer in layers) == counter.get_total_flops() // 2


def saved(task: Classification, path: Path) -> Path:
    torch.save(task.model.state_dict(), path)
    return path


# --- images -------------------------------------------------------------------------------------------------


def test_the_shorter_side_is_resized_and_the_middle_cut_out(tmp_path: Path) -> None:
    """A picture of one colour each quarter of its width: the crop shows the middle of it."""
    bands = np.zeros((64, 128, 3), np.uint8)
    for band in range(4):
        bands[:, 32 * band : 32 * band + 32] = 60 * band
    Image.fromarray(bands).save(tmp_path / "a.png")
    files = ImageFiles((tmp_path / "a.png",), 32, 32, "bilinear")
    pixels = files.pixels(tmp_path / "a.png")  # 64 x 32, columns 16 to 48
    assert pixels.shape == (32, 32, 3)
    assert (pixels[:, 1:15] == 60).all() and (pixels[:, 17:31] == 120).all()
    x = files.batch(np.array([0]))
    assert x.dtype == torch.float32 and x.shape == (1, 3, 32, 32)
    assert x[0, 2, 0, 5].item() == pytest.approx((60 / 255 - 0.406) / 0.225)


def test_resizing_filters_what_it_shrinks(tmp_path: Path) -> None:
    checks = np.indices((64, 64)).sum(0)[..., None] % 2 * np.full(3, 255)
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "a.png")
    for interpolation in ("bilinear", "bicubic"):
        files = ImageFiles((tmp_path / "a.png",), 16, 16, interpolation)
        assert abs(files.pixels(tmp_path / "a.png").astype(int) - 127).max() < 12


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_other_kinds_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (9, 7)).save(path)
    assert ImageFiles((path,), 8, 4, "bilinear").pixels(path).shape == (4, 4, 3)


def test_images_are_taken_evenly() -> None:
    assert (
        spread(range(10), 4) == [0, 2, 5, 7]
        and spread([1, 2], 5) == [1, 2]
        and spread([1, 2], None) == [1, 2]
    )


# --- labels -------------------------------------------------------------------------------------------------


def labels_of(task: Classification) -> list[int]:
    return [int(label) for label in task.labels]


def test_classes_are_folders_in_order(images: Path) -> None:
    assert labels_of(small(images)) == [0, 0, 1, 1, 2, 2]
    assert labels_of(small(images, evaluation_images=3)) == [0, 1, 2]
    with pytest.raises(
        AccelsimError, match="3 classes, expected 1000; of fewer, a file `synsets` says which"
    ):
        small(images, classes=1000)


def test_synsets_number_the_classes(images: Path, tmp_path: Path) -> None:
    listed = tmp_path / "synsets.txt"
    listed.write_text("n00000001 something\n" + "".join(f"{name} a fish\n" for name in reversed(SYNSETS)))
    assert labels_of(small(images, classes=1000, synsets=listed)) == [3, 3, 2, 2, 1, 1]
    listed.write_text("n01440764\nn01443537\n")
    with pytest.raises(AccelsimError, match="is of class 'n01484850', expected one of 3 classes that"):
        small(images, synsets=listed)
    listed.write_text("n01440764\nn01440764\n")
    with pytest.raises(AccelsimError, match="a class is listed twice"):
        small(images, synsets=listed)


def test_a_flat_folder_with_labels(tmp_path: Path, images: Path) -> None:
    flat = tmp_path / "flat"
    for seed in range(3):
        picture(flat / f"ILSVRC2012_val_0000000{seed}.JPEG", seed)
    listed = tmp_path / "val.txt"
    listed.write_text("".join(f"ILSVRC2012_val_0000000{seed}.JPEG {2 - seed}\n" for seed in range(3)))
    assert labels_of(small(images, evaluation=flat, labels=listed)) == [2, 1, 0]
    # The file of the Kaggle challenge: a header, names without suffix, boxes behind the class.
    listed.write_text(
        "ImageId,PredictionString\n"
        + "".join(f"ILSVRC2012_val_0000000{seed},{SYNSETS[seed]} 1 2 3 4\n" for seed in range(3))
    )
    assert labels_of(small(images, evaluation=flat, labels=listed)) == [0, 1, 2]
    for text, said in (
        ("ILSVRC2012_val_00000000.JPEG\n", "line 1 is 'ILSVRC2012_val_00000000.JPEG', expected a name and a"),
        ("other.JPEG 1\n", r"no line for ILSVRC2012_val_00000000.JPEG, expected one for every image"),
        ("".join(f"ILSVRC2012_val_0000000{seed}.JPEG {seed + 1}\n" for seed in range(3)), "is of class '3'"),
    ):
        listed.write_text(text)
        with pytest.raises(AccelsimError, match=said):
            labelled_images(flat, listed, None, 3)
    with pytest.raises(AccelsimError, match=r"ILSVRC2012_val_00000000.JPEG is in no folder of its class"):
        small(images, evaluation=flat)


# --- refusals -----------------------------------------------------------------------------------------------


def test_absent_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(AccelsimError) as error:
        resnet50(
            tmp_path / "a.pth", evaluation=tmp_path / "b", calibration=tmp_path / "c", labels=tmp_path / "d"
        )
    text = str(error.value)
    for name in "a.pth", "b", "c", "d":
        assert f"{tmp_path / name}: " in text
    assert "download.pytorch.org/models/resnet50-0676ba61.pth" in text and "ILSVRC2012_img_val.tar" in text


def test_folders_and_pictures_that_cannot_be_used(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AccelsimError, match=r"expected a folder with .jpeg, .jpg"):
        small(images, calibration=tmp_path / "empty")
    (images / SYNSETS[0] / "0.png").write_bytes(b"no picture")
    with pytest.raises(AccelsimError, match=r"0.png: cannot be read .*, expected a picture"):
        small(images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interpolation": "nearest"}, "interpolation is 'nearest', expected bilinear or bicubic"),
        ({"resize": 20}, "resize is 20, expected at least crop, 32"),
        ({"calibration_images": 0}, "calibration_images is 0"),
        ({"classes": 2.5}, r"classes is 2.5, expected a whole number"),
    ],
)
def test_arguments_are_checked(images: Path, options: Any, said: str) -> None:
    with pytest.raises(AccelsimError, match=said):
        small(images, **options)
