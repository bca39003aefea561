"""Dense networks say of every window what the classifier says of it alone."""

import numpy as np
import pytest
from family_networks import FAMILIES, family, short_family, unpadded
from reference import evaluate

import striate as st
from striate import layers, models
from striate.compiler.plan import make_plan
from striate.compiler.target import Target
from striate.layers.apply import apply
from striate.notation import multiply_adds
from striate.transforms.dense import NotDenseError, Sheet
from striate.transforms.fold import fold
from striate.transforms.fuse import fuse
from striate.transforms.read_through import read_through

STRIDES = (32, 16, 8, 4, 2, 1)
SIZES = {"inception_v3": 97, "googlenet": 65, "alexnet": 95, "alexnet_2012": 227}


def difference(found, expected):
    """The largest difference, as a part of the largest value."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def image(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def crops(given, size, strides, cells):
    """The windows of `given` at `cells`, one after another."""
    (s, t), (rows, columns) = strides, size
    parts = [given[:, s * p : s * p + rows, t * q : t * q + columns] for p, q in cells]
    return np.concatenate(parts)


def smallest(network):
    """The side of a small image of which layers without padding leave something."""
    for size in range(45, 480, 8):
        try:
            network.trace((1, size, size, 3))
        except ValueError:
            continue
        return size
    raise AssertionError("no image is large enough")


@pytest.mark.parametrize("name", FAMILIES)
def test_without_padding_every_window_has_the_classifiers_scores(name):
    network = short_family(name)
    with unpadded():
        size = smallest(network)
        native = network.trace((1, size, size + 3, 3))
    given = image(1, size + 32, size + 36, 3)
    (expected,) = evaluate(native, given[:, 32:, 33:])
    for stride in STRIDES:
        # The network's strides divide none of the columns' steps but the first, which are odd.
        sheet = Sheet(native, (stride, stride + 1))
        assert not sheet.reach().padded
        (found,) = evaluate(sheet.graph((2, 2)), given[:, 32 - stride :, 32 - stride :])
        assert found.shape == (1, 2, 2, 7)
        assert difference(found[0, 1, 1], expected[0]) < 1e-5
        # Otherwise a network that hears nothing would pass.
        assert difference(found[0, 0, 0], expected[0]) > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_with_padding_one_window_has_the_classifiers_scores_and_strides_agree(name):
    network = family(name)
    size = SIZES.get(name, 64)
    native = network.trace((1, size, size, 3))
    given = image(1, size + 8, size + 8, 3)
    window = given[:, :size, :size]
    (expected,) = evaluate(native, window)
    for stride in (32, 2):
        sheet = Sheet(native, (stride, stride))
        assert sheet.reach().padded
        (found,) = evaluate(sheet.graph((1, 1)), window)
        assert difference(found[0, 0], expected[0]) < 1e-5
    (coarse,) = evaluate(Sheet(native, (8, 8)).graph((2, 2)), given)
    (fine,) = evaluate(Sheet(native, (1, 1)).graph((9, 9)), given)
    assert difference(fine[:, ::8, ::8], coarse) < 1e-5


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "shufflenet_v2_x0_5", "densenet121"])
def test_features_are_those_of_the_network_on_the_whole_image(name):
    network = family(name)
    stride = Sheet(network.trace((1, 64, 64, 3))).stride
    given = image(1, 64 + 2 * stride[0], 64 + stride[1], 3)
    whole, dense = {}, {}
    evaluate(network.trace(given.shape), given, keep=whole)
    evaluate(Sheet(network.trace((1, 64, 64, 3)), stride).graph((3, 2)), given, keep=dense)
    alike = [label for label in whole if len(whole[label].shape) == 4 and label in dense]
    alike = [label for label in alike if whole[label].shape == dense[label].shape]
    assert len(alike) > 0.9 * len(whole)
    for label in alike:
        assert difference(dense[label], whole[label]) < 1e-5, label


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0", "vgg11"])
def test_compiled_programs_give_every_window_its_scores(name):
    network = short_family(name)
    with unpadded():
        size = smallest(network)
        for stride in (8, 3):
            dense = st.dense(network, stride, size=size)
            given = image(1, size + 2 * stride, size + stride + 1, 3, seed=stride)
            found = dense(given)
            geometry = dense.geometry_for(given.shape[1:3])
            assert geometry.shape == found.shape[1:3] == (3, 2)
            expected = [
                network(np.ascontiguousarray(given[:, rows, columns]))[0]
                for rows, columns in (geometry.window(p, q) for p in range(3) for q in range(2))
            ]
            assert difference(found.reshape(6, -1), np.stack(expected)) < 1e-5


class Small(layers.Module):
    """A classifier of the layers given, and a mean and a linear layer."""

    def __init__(self, *parts, features=4, mean=True):
        self.parts_ = layers.Sequential(*parts)
        self.mean = mean
        self.fc = layers.Linear(features, 3)

    def forward(self, input):
        features = self.parts_(input)
        features = layers.global_avg_pool2d(features) if self.mean else layers.flatten(features)
        return self.fc(features)


class Excite(layers.Module):
    """Features times what all pixels say of them."""

    def forward(self, input):
        means = layers.global_avg_pool2d(input)
        return apply("y[b,p,q,i] = x[b,p,q,i] * s[b,i]", {"x": input, "s": means}, input)


class Placed(layers.Module):
    """Features times a number for each place."""

    def forward(self, input):
        rows, columns = input.shape[1:3]
        places = np.linspace(0.5, 2, rows * columns, dtype=np.float32).reshape(rows, columns)
        return apply("y[b,p,q,i] = x[b,p,q,i] * s[p,q]", {"x": input, "s": places}, input)


class Sides(layers.Module):
    """Two convolutions side by side along the rows, not along the features."""

    def __init__(self):
        self.left, self.right = layers.Conv2d(4, 4, 3), layers.Conv2d(4, 4, 3)

    def forward(self, input):
        return layers.concatenate([self.left(input), self.right(input)], axis=1)


class Cut(layers.Module):
    """All but the first row and the first two columns."""

    def forward(self, input):
        rows, columns = input.shape[1:3]
        sizes = {"p": rows - 1, "q": columns - 2}
        return apply("y[b,p,q,i] = x[b, p+1, q+2, i]", {"x": input}, input, sizes=sizes)


class Enlarge(layers.Module):
    """Twice the size."""

    def forward(self, input):
        return layers.interpolate(input, scale_factor=2)


OWN = {
    "dilated": [layers.Conv2d(3, 4, 3, dilation=(2, 3)), layers.Conv2d(4, 4, 2, 3, dilation=2)],
    "odd strides": [layers.Conv2d(3, 4, 3, (3, 2)), layers.ReLU(), layers.MaxPool2d(2, (1, 5))],
    "grouped": [layers.Conv2d(3, 4, 2, 2), layers.Conv2d(4, 4, 3, 2, groups=2)],
    "normalised": [layers.Conv2d(3, 4, 3, 2), layers.LocalResponseNorm(3)],
    "excited": [layers.Conv2d(3, 4, 3, 2), Excite(), layers.Conv2d(4, 4, 3)],
    "placed": [layers.Conv2d(3, 4, 3, 2), Placed(), layers.Conv2d(4, 4, 3, 2)],
    "side by side": [layers.Conv2d(3, 4, 3, 2), Sides(), layers.MaxPool2d(2)],
    # Reads at multiples of eight pixels, and two or four beside them.
    "cut": [layers.Conv2d(3, 4, 3, 2), Cut(), layers.Conv2d(4, 4, 1, 4)],
    "averaged": [layers.Conv2d(3, 4, 3), layers.AvgPool2d(3, 2)],
}


@pytest.mark.parametrize("parts", OWN.values(), ids=list(OWN))
@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (4, 6), (5, 7), (12, 10)])
def test_any_equations_become_dense(parts, stride):
    check_windows(Small(*parts), (21, 26), stride)


@pytest.mark.parametrize("pool", [4, (7, 3), (5, 6)])
def test_windows_of_adaptive_pools_may_overlap(pool):
    rows, columns = (pool, pool) if isinstance(pool, int) else pool
    parts = [layers.Conv2d(3, 4, 3, 2), layers.AdaptiveAvgPool2d(pool)]
    network = Small(*parts, features=4 * rows * columns, mean=False)
    # 29 -> 14 places, of which the lecture's four windows are [0,4) [3,7) [7,11) [10,14).
    check_windows(network, (29, 29), (2, 3))


def check_windows(network, size, stride):
    native, batch = (network.trace((b, *size, 3)) for b in (1, 4))
    sheet = Sheet(native, stride)
    assert not sheet.reach().padded
    given = image(1, size[0] + stride[0], size[1] + stride[1], 3)
    cells = [(p, q) for p in range(2) for q in range(2)]
    (expected,) = evaluate(batch, crops(given, size, stride, cells))
    (found,) = evaluate(sheet.graph((2, 2)), given)
    assert difference(found.reshape(4, -1), expected) < 1e-5
    assert difference(found[0, 0, 0], found[0, 1, 1]) > 1e-4


def test_a_mean_leaves_out_the_padding_of_the_image_alone():
    pool = layers.AvgPool2d(3, 1, 1, count_include_pad=False)
    network = Small(layers.Conv2d(3, 4, 1), pool)
    dense = st.dense(network, 1, size=6)
    given = image(1, 9, 9, 3)
    found = dense(given)
    # The middle window's surroundings are pixels: an average of nine everywhere.
    features = network.parts_(given)
    inner = features[0, 2:8, 2:8].mean((0, 1))
    assert difference(found[0, 2, 2], inner @ network.fc.weight + network.fc.bias) < 1e-5


def test_what_is_divided_takes_no_finer_stride():
    network = Small(layers.Conv2d(3, 4, 3, 2), Enlarge(), layers.Conv2d(4, 4, 3))
    assert st.dense(network, 4, size=21)(image(1, 25, 25, 3)).shape == (1, 2, 2, 3)
    check_windows(network, (21, 26), (4, 2))
    with pytest.raises(NotDenseError, match=r"parts_.1 divides .*stride 2"):
        st.dense(network, 3, size=21)(image(1, 25, 25, 3))
    with pytest.raises(NotDenseError, match=r"output is \[1, 10, 10, 4\]; expected scores"):
        st.dense(layers.Conv2d(3, 4, 3, 2), 1, size=21)


def padded_network():
    """Little reach beside its window, so that there is something to be divided."""
    parts = [layers.Conv2d(3, 4, 5, 2, 2), layers.ReLU(), layers.MaxPool2d(3, 2, 1)]
    return Small(*parts, layers.Conv2d(4, 4, 3, 1, 1))


@pytest.mark.parametrize("stride", [1, 4, 6])
def test_strips_have_the_bits_of_the_whole(stride):
    network = padded_network()
    given = image(2, 150, 61, 3)
    whole = st.dense(network, stride, size=20, algorithm="direct")
    expected = whole(given)
    assert len(list(whole.strips(given[0]))) == 1
    height, columns = expected.shape[1:3]
    for rows in (height // 3 + 1, height // 2, height - 1):
        memory = whole._bytes(rows, columns)
        strips = st.dense(network, stride, size=20, algorithm="direct", memory=memory)
        parts = list(strips.strips(given[0]))
        assert len(parts) > 1
        assert strips._bytes(strips._height(height, columns), columns) <= memory
        assert (strips(given) == expected).all()
        assert len(strips._kept) == 1


def test_the_memory_that_is_known_before_is_what_a_pass_takes():
    dense = st.dense(padded_network(), 2, size=20)
    program = dense._executable((9, 11)).program
    arrays = [*[shape for _, shape in program.inputs], *program.outputs]
    assert dense._bytes(9, 11) == program.arena_bytes + 4 * sum(map(np.prod, arrays))


def test_too_little_memory_is_said():
    dense = st.dense(padded_network(), 2, size=20, memory=1000)
    with pytest.raises(
        ValueError,
        match=r"one strip of the image takes \d+ bytes of memory, more than the 1000 allowed",
    ):
        dense(image(1, 150, 61, 3))


def test_borders_of_windows_are_those_of_crops():
    network = padded_network()
    given = image(1, 32, 45, 3)
    dense = st.dense(network, (4, 5), "window", size=20)
    found = dense(given)
    geometry = dense.geometry_for((32, 45))
    assert found.shape == (1, *geometry.shape, 3) == (1, 4, 6, 3)
    for p in range(4):
        for q in range(6):
            rows, columns = geometry.window(p, q)
            crop = network(np.ascontiguousarray(given[:, rows, columns]))
            assert difference(found[0, p, q], crop[0]) < 1e-5
    assert difference(st.dense(network, (4, 5), size=20)(given), found) > 1e-3


def test_margins_are_zeros_around_the_image():
    network = padded_network()
    given = image(1, 32, 45, 3)
    wide = np.pad(given, [(0, 0), (10, 10), (6, 6), (0, 0)])
    for borders in ("image", "window"):
        dense = st.dense(network, 4, borders, size=20, margin=(10, 6))
        assert (dense(given) == st.dense(network, 4, borders, size=20)(wide)).all()
    geometry = dense.geometry_for((32, 45))
    assert (geometry.offset, geometry.window(1, 2)) == ((-10, -6), (slice(-6, 14), slice(2, 22)))
    rows, columns = geometry.centres()
    assert (rows[:2].tolist(), columns[:2].tolist()) == ([0.0, 4.0], [4.0, 8.0])
    # Smaller than a window, but not with its margins.
    assert dense.geometry_for((5, 8)).shape == (2, 1)


def test_the_models_own_stride_and_size():
    dense = st.dense(family("squeezenet1_0"))
    assert (dense.window, dense.stride, dense.classes) == ((224, 224), (16, 16), 7)
    assert st.dense(family("resnet18")).stride == (32, 32)
    assert st.dense(family("inception_v3")).window == (299, 299)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"output_stride": 0}, "output_stride is 0; expected at least 1"),
        ({"borders": "none"}, "borders is 'none'; expected 'image' or 'window'"),
        ({"memory": 0}, "memory is 0"),
        ({"margin": -1}, "margin is -1"),
        ({"size": (1, 2, 3)}, r"expected one integer or a pair \(rows, columns\)"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        st.dense(family("squeezenet1_0"), **wrong)


def test_wrong_images():
    dense = st.dense(padded_network(), 2, size=20)
    with pytest.raises(ValueError, match=r"has 19 x 40 pixels; expected at least .* 20 x 20"):
        dense(image(1, 19, 40, 3))
    with pytest.raises(ValueError, match=r"expected 4: \[b,x,y,i\]"):
        dense(image(40, 40, 3))
    with pytest.raises(ValueError, match="must have 3 features"):
        dense(image(1, 40, 40, 4))
    with pytest.raises(ValueError, match="give `size`"):
        st.dense(padded_network())
    with pytest.raises(TypeError, match="model is int"):
        st.dense(3)
    assert dense(image(0, 40, 40, 3)).shape == (0, 11, 11, 3)


def test_a_dense_network_keeps_the_model_as_it_was():
    network = padded_network()
    given = image(1, 30, 30, 3)
    dense = st.dense(network, 2, size=20)
    network.fc.bias = np.ones(3, np.float32)
    assert difference(st.dense(network, 2, size=20)(given), dense(given)) > 1e-3


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "inception_v3", "alexnet"])
def test_no_layer_falls_to_the_nest_of_loops(name):
    size = models.find(name).input[0]
    graph = models.create(name).trace((1, size, size, 3), abstract=True)
    target = Target.host()
    for stride in (32, 8, 1):
        dense = Sheet(graph, (stride, stride)).graph((3, 3))
        plan = make_plan(fuse(read_through(fold(dense), reorder=True)), target)
        products = [work for work in plan.work if multiply_adds(work.node.statement)]
        assert len(products) > 6
        tiled = {"direct", "grouped", "winograd", "inner_product"}
        assert {work.schedule.name for work in products} <= tiled
