"""accelsim.recipes: what every task gives, agreement and intervals, and the CIFAR-10 ResNets."""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

import accelsim.torch  # noqa: E402
from accelsim import AccelsimError, open_workload  # noqa: E402
from accelsim.recipes import agreement, cifar_resnet, paired_interval  # noqa: E402
from accelsim.recipes.cifar import CifarResNet  # noqa: E402
from accelsim.recipes.cifar_data import read_cifar  # noqa: E402
from accelsim.recipes.classify import Classification, label_ranks  # noqa: E402
from accelsim.recipes.files import load_state, read_state  # noqa: E402

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10_resnet"


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    pixels, labels = drawn(10)
    np.savez(path, images=pixels, labels=labels)
    return path


def small(images: Path, **options: Any) -> Classification:
    return cifar_resnet(**{"evaluation": images, "calibration": images, "batch": 4, **options})


# --- agreement and intervals --------------------------------------------------------------------------------


def test_agreement_of_hand_made_outputs() -> None:
    reference = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    outputs = np.array([[4.0, 3.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    found = agreement(reference, outputs)
    assert found["same_argmax"] == pytest.approx(200 / 3)
    assert found["sqnr_db"] == pytest.approx(10 * math.log10(26 / 2))
    assert found["cosine"] == pytest.approx((24 / 25 + 1 + 1) / 3)
    assert agreement(reference, reference)["sqnr_db"] == math.inf
    assert agreement(reference[:1], 0 * outputs[:1])["cosine"] == 0
    assert set(agreement(reference, outputs, argmax=False)) == {"sqnr_db", "cosine"}


def test_argmax_of_start_and_end_is_over_tokens() -> None:
    reference = np.zeros((1, 3, 2))
    reference[0, 2] = 1
    outputs = reference.copy()
    outputs[0, 1, 0] = 2  # another start, the same end
    assert agreement(reference, outputs)["same_argmax"] == 50


def test_agreement_wants_one_shape() -> None:
    with pytest.raises(AccelsimError, match=r"\[2, 3\], outputs \[2, 4\], expected one shape"):
        agreement(np.zeros((2, 3)), np.zeros((2, 4)))


def test_paired_interval_of_a_published_table() -> None:
    """Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), 2850: airway hyper-responsiveness
    before and after transplantation, 1, 1, 7 and 12 of 21 children."""
    before = np.repeat([True, True, False, False], [1, 1, 7, 12])
    after = np.repeat([True, False, True, False], [1, 1, 7, 12])
    low, high = paired_interval(before, after)
    # (2 - 8) / 23 -+ 1.959964 sqrt((10 / 23 - (6 / 23)^2) / 23), by hand
    assert (low, high) == (pytest.approx(-50.84, abs=0.01), pytest.approx(-1.34, abs=0.01))
    assert paired_interval(after, before) == (-high, -low)


def test_paired_interval_of_equal_answers_holds_zero() -> None:
    right = np.ones(512, bool)
    low, high = paired_interval(right, right)
    assert low == -high and 0 < high < 1
    with pytest.raises(AccelsimError, match=r"correct_b is float64\[3\], expected bool\[n\]"):
        paired_interval(np.ones(3, bool), np.ones(3))
    with pytest.raises(AccelsimError, match="3 and 2 examples"):
        paired_interval(np.ones(3, bool), np.ones(2, bool))


def test_ranks_of_labels() -> None:
    logits = np.array([[1, 3, 2], [2, 2, 2], [0, 1, 2]], np.float32)
    assert label_ranks(logits, np.array([2, 2, 2])).tolist() == [1, 2, 0]
    with pytest.raises(AccelsimError, match="label 3 of 3 classes"):
        label_ranks(logits, np.array([0, 1, 3]))


# --- a task -------------------------------------------------------------------------------------------------


def test_every_example_is_evaluated_once_in_order(images: Path) -> None:
    task = small(images)
    assert task.examples == 10 and task.inputs.shape == (4, 3, 32, 32) and not task.model.training
    assert [len(rows) for rows, _ in task.evaluation()] == [4, 4, 2]
    said = []
    found = task.outputs(lambda x: x[:, :, 0, 0], lambda *progress: said.append(progress))
    pixels, _ = drawn(10)
    expected = (pixels[:, 0, 0] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert said == [("evaluation", done, 10) for done in (0, 4, 8, 10)]


def test_calibration_is_in_whole_batches(images: Path) -> None:
    assert [len(batch) for batch in small(images, calibration_images=9).calibration()] == [4, 4]
    with pytest.raises(AccelsimError, match="2 calibration images, expected at least a batch of 4"):
        small(images, calibration_images=2)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda x: (x, x), "is tuple, expected one tensor of floats"),
        (lambda x: x[:1], r"is of shape \[1, 3, 32, 32\], expected \[4, ...\]"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x[:, : len(x)], r"outputs of \[2, 32, 32\] and \[3, 32, 32\]"),
    ],
)
def test_what_no_model_may_return(images: Path, model: Any, said: str) -> None:
    with pytest.raises(AccelsimError, match=said):
        small(images).outputs(model)


def test_metrics_are_percent_and_follow_the_labels(images: Path) -> None:
    task = small(images)
    labels = drawn(10)[1]
    outputs = np.eye(10, dtype=np.float32)[labels]
    assert task.metrics(outputs) == {"top1": 100.0} and task.headline == "top1"
    outputs[3] = np.roll(outputs[3], 1)
    assert task.metrics(outputs) == {"top1": 90.0}
    assert np.flatnonzero(~task.correct(outputs)).tolist() == [3]
    with pytest.raises(AccelsimError, match=r"outputs are \[9, 10\], expected \[10, classes\]"):
        task.metrics(outputs[:9])


def test_outputs_are_compared_with_a_reference_s(images: Path) -> None:
    task = cifar_resnet(20, evaluation=images, calibration=images, batch=2)
    reference = np.eye(10, dtype=np.float32)[task.labels]
    outputs = reference.copy()
    outputs[0] = np.roll(outputs[0], 1)
    found, count = task.compare(outputs, reference), task.examples
    assert found["top1"] == pytest.approx(100 - 100 / count)
    assert found["top1_difference"] == pytest.approx(-100 / count)
    assert (found["top1_low"], found["top1_high"]) == paired_interval(
        task.correct(outputs), task.correct(reference)
    )
    assert found["same_argmax"] == pytest.approx(100 - 100 / count)
    assert found["sqnr_db"] == pytest.approx(10 * np.log10(count / 2))


def test_random_weights_follow_from_the_seed(images: Path) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (small(images, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    one = first.outputs(first.model)
    assert np.array_equal(one, again.outputs(again.model))
    assert not np.array_equal(one, other.outputs(other.model))
    assert 0.05 < one.std() < 20  # neither dead nor grown with depth


# --- the CIFAR-10 ResNets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_a_cifar_resnet_has_as_many_layers_as_it_says(depth: int) -> None:
    model = CifarResNet(depth)
    weights = [name for name, value in model.named_parameters() if value.dim() > 1]
    assert len(weights) == depth and "layer3.0.conv2.weight" in weights and "linear.weight" in weights
    millions = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.73}  # He et al., table 6 (1.7 for 110)
    assert sum(value.numel() for value in model.parameters()) / 1e6 == pytest.approx(
        millions[depth], abs=0.006
    )


def test_the_shortcut_takes_every_other_pixel_between_channels_of_zeros() -> None:
    block = CifarResNet(20).eval().layer2[0]
    with torch.no_grad():
        block.bn2.weight.zero_()  # only the shortcut is left
        x = torch.rand(1, 16, 8, 8)
        y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2]) and not y[:, :8].any() and not y[:, 24:].any()


@pytest.mark.parametrize(("depth", "top1"), [(20, 91.21), (56, 94.14)])
def test_published_weights_give_the_published_accuracy(depth: int, top1: float) -> None:
    if not CIFAR.is_dir():
        pytest.skip(f"{CIFAR} is not there: weights and images of CIFAR-10")
    task = cifar_resnet(
        depth,
        CIFAR / f"resnet{depth}.safetensors",
        evaluation=CIFAR / "cifar10_dev_512.npz",
        calibration=CIFAR / "cifar10_calib_256.npz",
    )
    assert task.metrics(task.outputs(task.model))["top1"] == pytest.approx(top1, abs=0.005)
    assert len(list(task.calibration())) == 4


def test_a_cifar_resnet_is_exported(images: Path, tmp_path: Path) -> None:
    task = small(images, batch=2)
    path = accelsim.torch.export(
        task.model, task.inputs, tmp_path / "net.safetensors", calibration=task.calibration()
    )
    layers = open_workload(path).layers
    assert len(layers) == 20 and layers[0].name == "conv1"
    # He et al., table 6, say 41 million for the 20 layers of one image
    assert sum(layer.geometry.macs for layer in layers) == 2 * 40_551_040


# --- files --------------------------------------------------------------------------------------------------


def test_absent_files_are_named_at_once(images: Path, tmp_path: Path) -> None:
    with pytest.raises(AccelsimError) as error:
        cifar_resnet(32, tmp_path / "a.th", evaluation=tmp_path / "b", calibration=images)
    text = str(error.value)
    assert text.startswith("cifar-resnet32: not on disk, expected there: ") and "images.npz" not in text
    assert f"{tmp_path / 'a.th'}: weights of ResNet-32, published as pretrained_models/resnet32" in text
    assert f"{tmp_path / 'b'}: images to evaluate, published as test_batch in cifar-10-python" in text


def test_a_checkpoint_of_data_parallel_training(images: Path, tmp_path: Path) -> None:
    task = small(images, seed=3)
    state = {f"module.{name}": value for name, value in task.model.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.0}, tmp_path / "model.th")
    own = small(images, weights=tmp_path / "model.th")
    assert np.array_equal(own.outputs(own.model), task.outputs(task.model))


class Mischief:
    """A pickle of it runs a command when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder / "made"),)


def test_weights_are_read_as_data_only(tmp_path: Path) -> None:
    torch.save({"weight": Mischief(tmp_path)}, tmp_path / "model.th")
    with pytest.raises(AccelsimError, match=r"model.th: expected a file of tensors only$"):
        read_state(tmp_path / "model.th")
    assert not (tmp_path / "made").exists()
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(AccelsimError, match="expected a file of tensors only"):
        read_state(tmp_path / "damaged.safetensors")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(AccelsimError, match="expected a state dict"):
        read_state(tmp_path / "list.pth")


def test_weights_of_another_model_are_refused() -> None:
    state = CifarResNet(20).state_dict()
    state["linear.weight"] = torch.zeros(100, 64)
    state["fc.bias"] = state.pop("linear.bias")
    with pytest.raises(AccelsimError) as error:
        load_state(CifarResNet(20), state, "x.th")
    assert str(error.value) == (
        "weights x.th: not of this model: it lacks linear.bias; nothing here is called fc.bias; "
        "linear.weight is [100, 64], expected [10, 64]"
    )


def python_batch(path: Path, pixels: np.ndarray, labels: Any, protocol: int = 2) -> Path:
    """As the official batches are: planes of red, green and blue, keys that are bytes."""
    data = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    batch = {b"data": np.ascontiguousarray(data), b"labels": list(map(int, labels)), b"filenames": [b"a.png"]}
    path.write_bytes(pickle.dumps(batch, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_batches(tmp_path: Path, protocol: int) -> None:
    pixels, labels = drawn(6)
    found = read_cifar(python_batch(tmp_path / "test_batch", pixels, labels, protocol), "test")
    assert np.array_equal(found.pixels, pixels) and np.array_equal(found.labels, labels)


def test_a_batch_as_python_2_wrote_it(tmp_path: Path) -> None:
    """Strings are opcode U, and the array's bytes one of them: as in the official archive."""
    pixels, labels = drawn(1)
    raw = pixels.transpose(0, 3, 1, 2).tobytes()
    stream = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
        b"U\x01b\x87Rq\x05(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        b"U\x06labelsq\x08]q\x09K" + bytes([labels[0]]) + b"au."
    )
    (tmp_path / "test_batch").write_bytes(stream)
    found = read_cifar(tmp_path / "test_batch", "test")
    assert np.array_equal(found.pixels, pixels) and found.labels.tolist() == labels.tolist()


def test_binary_batches_and_folders(tmp_path: Path) -> None:
    pixels, labels = drawn(10)
    rows = np.concatenate(
        [labels[:, None].astype(np.uint8), pixels.transpose(0, 3, 1, 2).reshape(10, -1)], axis=1
    )
    for number in range(5):
        (tmp_path / f"data_batch_{number + 1}.bin").write_bytes(rows[2 * number : 2 * number + 2].tobytes())
    found = read_cifar(tmp_path, "train")
    assert np.array_equal(found.pixels, pixels) and np.array_equal(found.labels, labels)
    with pytest.raises(AccelsimError, match="no batches of CIFAR-10 in it, expected test_batch or"):
        read_cifar(tmp_path, "test")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(AccelsimError, match=r"lacks data_batch_3.bin, expected all train batches"):
        read_cifar(tmp_path, "train")
    (tmp_path / "short.bin").write_bytes(b"x" * 100)
    with pytest.raises(AccelsimError, match="100 bytes, expected a multiple of 3073"):
        read_cifar(tmp_path / "short.bin", "test")


def refused_batch(path: Path, content: Any) -> str:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    with pytest.raises(AccelsimError) as error:
        read_cifar(path, "test")
    return str(error.value)


def test_pickles_that_are_no_batches_are_refused(tmp_path: Path) -> None:
    pixels, labels = drawn(2)
    flat = pixels.reshape(2, -1)
    path = tmp_path / "test_batch"
    said = refused_batch(path, {b"data": Mischief(tmp_path), b"labels": [1, 2]})
    assert "mkdir, which is not loaded; expected arrays of bytes only" in said
    assert not (tmp_path / "made").exists()
    assert "array of 'f8', expected uint8" in refused_batch(path, {b"data": np.zeros((2, 3072))})
    assert "array of 'O8'" in refused_batch(path, {b"data": np.array([None])})
    assert "for 1 labels, expected (1, 3072)" in refused_batch(path, {b"data": flat, b"labels": [1]})
    assert "labels hold something else" in refused_batch(path, {b"data": flat, b"labels": [1, "2"]})
    assert "label 12, expected 0 to 9" in refused_batch(path, {b"data": flat, b"labels": [1, 12]})
    assert "a dict with an array `data`" in refused_batch(path, [flat])
    assert "in C order" in refused_batch(path, {b"data": np.asfortranarray(flat), b"labels": [1, 2]})
    assert "is no python batch" in refused_batch(path, b"nothing of the kind")
    whole = python_batch(path, pixels, labels).read_bytes()
    assert "is no python batch" in refused_batch(path, whole[:1000])


def test_npz_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((2, 3, 32, 32), np.uint8), labels=np.zeros(2, int))
    with pytest.raises(AccelsimError, match=r"uint8\[2, 3, 32, 32\], expected uint8\[n, 32, 32, 3\]"):
        read_cifar(path, "test")
    np.savez(path, images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.zeros(3, int))
    with pytest.raises(AccelsimError, match=r"labels are int64\[3\]"):
        read_cifar(path, "test")
    np.savez(path, images=np.zeros((0, 32, 32, 3), np.uint8), labels=np.zeros(0, int))
    with pytest.raises(AccelsimError, match="holds none"):
        read_cifar(path, "test")
    np.savez(path, pixels=np.zeros(1))
    with pytest.raises(AccelsimError, match=r"expected an .npz with images and labels"):
        read_cifar(path, "test")


def test_arguments_are_checked(images: Path) -> None:
    for options, said in (
        ({"depth": 18}, "depth is 18, expected 20, 32, 44, 56 or 110"),
        ({"batch": 0}, "batch is 0, expected a whole number from 1"),
        ({"evaluation_images": True}, "evaluation_images is True"),
    ):
        with pytest.raises(AccelsimError, match=said):
            small(images, **options)
    assert small(images, evaluation_images=3).examples == 3
