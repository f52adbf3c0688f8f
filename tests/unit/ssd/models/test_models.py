"""Encoders, the projector and the flat vector they travel as."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from ssd.data.images.source import ImageFormat, TensorImages
from ssd.models import projector
from ssd.models.batch_statistics import calibrate
from ssd.models.flat import BUFFERS, BufferPolicy, FlatModel, entries_of
from ssd.models.initialise import initialise
from ssd.models.projector import ProjectorConfig
from ssd.models.registry import EncoderName, ModelConfig, build_initialised, skeleton
from ssd.updates.spec import Kind

DIGITS = ImageFormat(size=8, channels=1)
TINY = ModelConfig(name="small", feature_dim=12, width=4)


def parts(seed: int = 0) -> dict[str, nn.Module]:
    head = projector.build_initialised(12, ProjectorConfig(hidden_dim=20), seed + 1)
    return {"encoder": build_initialised(TINY, DIGITS, seed), "projector": head}


def images(count: int, image: ImageFormat = DIGITS, seed: int = 0) -> torch.Tensor:
    return torch.rand(
        count, image.channels, image.size, image.size, generator=torch.Generator().manual_seed(seed)
    )


def test_convolutions_start_as_torchvisions_networks_do_or_as_torch_does() -> None:
    layer = nn.Conv2d(8, 64, 3)
    initialise(layer, torch.Generator().manual_seed(1))
    deviation = (2 / (64 * 9)) ** 0.5
    assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.05)
    assert float(layer.weight.detach().abs().max()) > 3 * deviation
    initialise(layer, torch.Generator().manual_seed(1), "torch")
    bound = (8 * 9) ** -0.5
    assert float(layer.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    torch.manual_seed(0)
    theirs = nn.Conv2d(8, 64, 3)
    assert float(theirs.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01), "torch's own default"


@pytest.mark.parametrize(
    ("name", "image", "features"),
    [
        ("resnet18_cifar", ImageFormat(size=32, channels=3), 512),
        ("resnet18_cifar", ImageFormat(size=16, channels=1), 512),
        ("resnet18", ImageFormat(size=64, channels=3), 512),
        ("resnet50", ImageFormat(size=64, channels=1), 2048),
        ("small", ImageFormat(size=8, channels=1), 128),
        ("small", ImageFormat(size=17, channels=3), 128),
        ("small", ImageFormat(size=32, channels=3), 128),
        ("small", ImageFormat(size=4, channels=1), 128),
        ("resnet8", ImageFormat(size=32, channels=3), 256),
        ("resnet8", ImageFormat(size=8, channels=1), 256),
    ],
)
def test_an_encoder_gives_non_negative_features_of_its_length(
    name: EncoderName, image: ImageFormat, features: int
) -> None:
    config = ModelConfig(name=name)
    encoder = build_initialised(config, image, 0).eval()
    with torch.no_grad():
        output = encoder(images(2, image))
    assert output.shape == (2, features)
    assert config.resolved().feature_dim == features
    assert bool((output >= 0).all())


def test_the_papers_network_has_the_papers_number_of_parameters() -> None:
    encoder = skeleton(ModelConfig(name="resnet18_cifar"), ImageFormat(size=32, channels=3))
    head = projector.skeleton(512, ProjectorConfig())
    assert sum(p.numel() for p in encoder.parameters()) == 11_168_832
    assert sum(p.numel() for p in head.parameters()) == 2_103_808


def test_resnet8_halves_the_resolution_four_times_and_doubles_its_width_three_times() -> None:
    config = ModelConfig(name="resnet8", width=6).resolved()
    assert (config.feature_dim, config.resolved()) == (48, config)
    encoder = build_initialised(config, ImageFormat(size=32, channels=3), 0)
    shapes = []
    for module in encoder.layers:  # type: ignore[union-attr]  # a Sequential
        module.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    encoder(images(2, ImageFormat(size=32, channels=3)))
    assert shapes == [(6, 16, 16)] * 3 + [(12, 8, 8), (24, 4, 4), (48, 2, 2)]
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 7, "with a classifier eight layers"


def test_an_imagenet_encoder_has_torchvisions_names() -> None:
    from ssd.torch_support.torchvision_compat import torchvision

    ours = skeleton(ModelConfig(name="resnet18"), ImageFormat(size=64, channels=3)).state_dict()
    theirs = torchvision("torchvision.models").resnet18().state_dict()
    assert {name: tuple(value.shape) for name, value in ours.items()} == {
        name: tuple(value.shape) for name, value in theirs.items() if not name.startswith("fc.")
    }


def test_building_is_seeded_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (build_initialised(TINY, DIGITS, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    values = [torch.cat([p.reshape(-1) for p in model.parameters()]) for model in (first, again, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_an_unknown_layer_is_not_left_uninitialised() -> None:
    with pytest.raises(TypeError, match="LayerNorm"):
        initialise(nn.Sequential(nn.LayerNorm(3)), torch.Generator())


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (ModelConfig(name="resnet18", feature_dim=128), "feature_dim 512"),
        (ModelConfig(name="resnet18", width=8), "small encoder"),
        (ModelConfig(name="small", width=0), "positive"),
        (ModelConfig(name="resnet8", width=0), "positive"),
        (ModelConfig(name="resnet8", width=16, feature_dim=64), "feature_dim 128"),
    ],
)
def test_settings_an_encoder_cannot_have_are_refused(config: ModelConfig, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        config.resolved()


def test_the_vector_has_a_group_per_part_and_one_of_statistics_without_the_counter() -> None:
    model = FlatModel(parts(), "averaged", "cpu")
    assert list(model.spec.groups) == ["encoder", "projector", BUFFERS]
    assert not [t.name for t in model.spec.tensors if "num_batches" in t.name]
    kinds = {t.name.rsplit(".", 1)[1]: t.kind for t in model.spec.tensors if t.group == BUFFERS}
    assert kinds == {"running_mean": Kind.BUFFER, "running_var": Kind.VARIANCE}
    assert {t.kind for t in model.spec.tensors if t.group != BUFFERS} == {Kind.PARAMETER}
    assert model.trainable.numel() == sum(p.numel() for part in parts().values() for p in part.parameters())


def test_the_vector_is_the_modules_tensors_in_order() -> None:
    modules = parts()
    expected = [p.detach().reshape(-1) for part in modules.values() for p in part.parameters()]
    for part in modules.values():
        expected += [b.reshape(-1) for name, b in part.named_buffers() if "num_batches" not in name]
    vector = FlatModel(modules, "averaged", "cpu").vector()
    assert np.array_equal(vector, torch.cat(expected).numpy())


def test_loading_a_vector_and_reading_it_back_changes_no_bit_and_reaches_the_modules() -> None:
    modules = parts()
    model = FlatModel(modules, "averaged", "cpu")
    vector = np.random.default_rng(0).random(model.spec.size, dtype=np.float32)
    vector.flags.writeable = False
    model.load(vector)
    assert np.array_equal(model.vector(), vector)
    for tensor in model.spec.tensors:
        part, path = tensor.name.split(".", 1)
        held = modules[part].state_dict()[path]
        assert np.array_equal(held.numpy().reshape(-1), vector[tensor.where])


def test_what_is_read_back_is_a_copy() -> None:
    model = FlatModel(parts(), "averaged", "cpu")
    vector = model.vector()
    model.trainable.add_(1.0)
    assert np.array_equal(vector, FlatModel(parts(), "averaged", "cpu").vector())


def test_a_vector_of_another_length_is_refused() -> None:
    model = FlatModel(parts(), "averaged", "cpu")
    with pytest.raises(ValueError, match="values"):
        model.load(np.zeros(model.spec.size + 1, dtype=np.float32))


def test_the_flat_gradient_is_the_modules_gradients_in_order() -> None:
    modules = parts()
    model = FlatModel(modules, "averaged", "cpu")
    modules["projector"](modules["encoder"](images(6))).square().sum().backward()
    expected = torch.cat(
        [p.grad.reshape(-1) for part in modules.values() for p in part.parameters() if p.grad is not None]
    )
    assert torch.equal(model.gradient(), expected)
    model.clear_gradient()
    assert not model.gradient().any()


def test_batch_statistics_of_a_forward_pass_are_in_the_vector() -> None:
    modules = parts()
    model = FlatModel(modules, "averaged", "cpu")
    before = model.vector()
    modules["encoder"].train()(images(6))
    changed = np.flatnonzero(model.vector() != before)
    assert changed.size > 0
    assert changed.min() >= model.spec.groups[BUFFERS].start


def test_local_statistics_are_not_in_the_vector_but_can_be_kept_and_given_back() -> None:
    modules = parts()
    model = FlatModel(modules, "local", "cpu")
    assert list(model.spec.groups) == ["encoder", "projector"]
    vector = model.vector()
    modules["encoder"].train()(images(6))
    kept = model.local()
    assert kept is not None
    assert np.array_equal(model.vector(), vector)
    model.load(vector)
    fresh = model.local()
    assert fresh is not None
    assert set(np.unique(fresh)) == {0.0, 1.0}
    model.load(vector, kept)
    assert np.array_equal(model.local(), kept)  # type: ignore[arg-type]  # not None, seen above
    with pytest.raises(ValueError, match="statistics"):
        model.load(vector, kept[:-1])


@pytest.mark.parametrize("policy", ["averaged", "local"])
def test_a_private_part_is_trained_with_the_others_but_does_not_travel(policy: BufferPolicy) -> None:
    modules = parts()
    model = FlatModel(modules, policy, "cpu", private=("projector",))
    assert [t.name for t in model.spec.tensors if t.name.startswith("projector")] == []
    assert list(model.spec.groups) == (["encoder", BUFFERS] if policy == "averaged" else ["encoder"])
    assert entries_of(modules, policy, ("projector",)) == [
        (t.name, t.shape, t.group, t.kind) for t in model.spec.tensors
    ]
    whole = FlatModel(parts(), policy, "cpu")
    assert model.trainable.numel() == whole.trainable.numel()
    assert torch.equal(model.trainable[model.where("projector")], whole.trainable[whole.where("projector")])
    assert torch.equal(model.trainable[model.shared], whole.trainable[whole.where("encoder")])
    assert torch.equal(
        torch.cat([p.reshape(-1) for p in model.shared_parameters()]), model.trainable[model.shared]
    )
    modules["projector"](modules["encoder"](images(6))).square().sum().backward()
    head = torch.cat([p.grad.reshape(-1) for p in modules["projector"].parameters() if p.grad is not None])
    assert torch.equal(model.gradient()[model.where("projector")], head)


@pytest.mark.parametrize("policy", ["averaged", "local"])
def test_private_parameters_and_statistics_can_be_kept_and_given_back(policy: BufferPolicy) -> None:
    modules = parts()
    model = FlatModel(modules, policy, "cpu", private=("projector",))
    vector, first = model.vector(), model.private()
    assert first is not None
    modules["projector"].train()(modules["encoder"].train()(images(6)))
    model.trainable[model.where("projector")] += 1.0
    kept, statistics = model.private(), model.local()
    assert kept is not None
    assert statistics is not None
    model.load(vector, None, first)
    assert np.array_equal(model.vector(), vector)
    assert np.array_equal(model.private(), first)  # type: ignore[arg-type]  # there are private parts
    assert set(np.unique(model.local())) == {0.0, 1.0}  # type: ignore[arg-type]  # the projector has some
    model.load(vector, statistics, kept)
    assert np.array_equal(model.private(), kept)  # type: ignore[arg-type]  # there are private parts
    assert np.array_equal(model.local(), statistics)  # type: ignore[arg-type]  # the projector has some
    assert np.array_equal(model.vector(), vector)


def test_a_model_with_private_parts_is_never_loaded_without_them() -> None:
    """Otherwise the head of the client before would be trained on."""
    model = FlatModel(parts(), "averaged", "cpu", private=("projector",))
    with pytest.raises(ValueError, match="own parameters"):
        model.load(model.vector())
    with pytest.raises(ValueError, match="own parameters"):
        FlatModel(parts(), "averaged", "cpu").load(
            FlatModel(parts(), "averaged", "cpu").vector(), None, np.zeros(3, dtype=np.float32)
        )


def test_a_buffer_of_unknown_kind_is_refused() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("table", torch.zeros(2))
    with pytest.raises(ValueError, match="table"):
        entries_of({"encoder": module}, "averaged")


def test_calibration_gives_the_statistics_of_the_images_and_restores_the_module() -> None:
    encoder = build_initialised(TINY, DIGITS, 0).eval()
    pictures = (images(40) * 255).to(torch.uint8)
    calibrate(encoder, TensorImages(pictures), torch.device("cpu"))
    first = next(m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))
    convolution = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    assert first.running_mean is not None
    with torch.no_grad():
        expected = convolution(pictures / 255.0).mean(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean, expected, atol=1e-5)
    assert first.momentum == 0.1
    assert not encoder.training


def test_torchvision_can_be_imported_when_its_operators_are_missing() -> None:
    """Stands in for a CPU-only torch beside a wheel that links CUDA: the wheel's library is kept from loading."""
    program = textwrap.dedent(
        """
        import torch
        real = torch.ops.load_library
        def refuse(path):
            if "torchvision" in str(path):
                raise OSError("libcudart is missing")
            return real(path)
        torch.ops.load_library = refuse
        try:
            import torchvision
        except RuntimeError as error:
            assert "torchvision::nms" in str(error), error
        else:
            raise SystemExit("the failure was not reproduced")
        from ssd.torch_support.torchvision_compat import torchvision
        model = torchvision("torchvision.models.resnet").resnet18()
        print(sum(p.numel() for p in model.parameters()))
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "11689512"
