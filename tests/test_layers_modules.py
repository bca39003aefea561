"""Modules: names, order and layouts of their arrays, replacing them, and when they compile anew."""

import copy
import pickle

import numpy as np
import pytest
from reference import evaluate
from test_layers_windows import arrays

from striate import layers
from striate.layers import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    Module,
    ReLU,
    Sequential,
    StateDictError,
    tracing,
)
from striate.network.graph import Input, Parameter


class Block(Module):
    def __init__(self):
        self.conv1 = Conv2d(3, 4, 3, padding=1)
        self.bn1 = BatchNorm2d(4)
        self.relu = ReLU()
        self.conv2 = Conv2d(4, 4, 1, bias=False)

    def forward(self, input):
        inner = self.relu(self.bn1(self.conv1(input)))
        return self.relu(layers.add(self.conv2(inner), inner))


def small():
    return Sequential(Block(), AdaptiveAvgPool2d((1, 1)), Flatten(), Linear(4, 2))


def test_state_dict_has_the_names_order_and_layouts_of_torch():
    shapes = small().state_shapes()
    assert list(shapes.items()) == [
        ("0.conv1.weight", (4, 3, 3, 3)),
        ("0.conv1.bias", (4,)),
        ("0.bn1.weight", (4,)),
        ("0.bn1.bias", (4,)),
        ("0.bn1.running_mean", (4,)),
        ("0.bn1.running_var", (4,)),
        ("0.bn1.num_batches_tracked", ()),
        ("0.conv2.weight", (4, 4, 1, 1)),
        ("3.weight", (2, 4)),
        ("3.bias", (2,)),
    ]
    module = small()
    state = module.state_dict()
    assert {name: array.shape for name, array in state.items()} == shapes
    assert state["0.bn1.num_batches_tracked"].dtype == np.int64
    assert (state["0.conv1.weight"] == module[0].conv1.weight.transpose(3, 2, 0, 1)).all()
    assert (state["3.weight"] == module[3].weight.T).all()
    names = [name for name, _ in module.named_parameters()]
    assert names == [name for name in shapes if "running" not in name and "num_b" not in name]
    assert module.count_parameters() == 108 + 4 + 8 + 16 + 8 + 2


def test_state_dict_goes_round():
    one, two = small(), small()
    assert not np.array_equal(one[3].weight, two[3].weight)
    two.load_state_dict(one.state_dict())
    for name, array in one.state_dict().items():
        assert np.array_equal(two.state_dict()[name], array), name


def test_loading_makes_no_copies():
    module, state = small(), {}
    for name, shape in module.state_shapes().items():
        state[name] = np.zeros(shape, np.float32)
    module.load_state_dict(state)
    assert np.shares_memory(module[0].conv1.weight, state["0.conv1.weight"])
    state["3.weight"] = np.zeros((2, 4), np.float16)
    module.load_state_dict(state)
    assert module[3].weight.dtype == np.float32


def test_a_state_dict_that_does_not_fit_is_named_and_changes_nothing():
    module = small()
    state = dict(module.state_dict())
    before = module[3].bias
    del state["0.conv2.weight"], state["0.bn1.num_batches_tracked"]
    state["0.extra"] = np.zeros(1)
    state["3.weight"] = np.zeros((2, 5))
    with pytest.raises(StateDictError) as caught:
        module.load_state_dict(state)
    error = caught.value
    assert error.missing == ("0.conv2.weight",)
    assert error.unexpected == ("0.extra",)
    assert error.shapes == ("3.weight [2, 5], expected [2, 4]",)
    for word in ("0.conv2.weight", "0.extra", "[2, 5]", "another network"):
        assert word in str(error)
    assert module[3].bias is before


def test_labels_are_paths_and_parameters_have_state_dict_names():
    graph = small().trace((1, 5, 5, 3))
    labels = [node.label for node in graph.nodes() if hasattr(node, "label")]
    assert labels == [
        "0.conv1", "0.bn1", "0.relu", "0.conv2", "0.add", "0.relu_1", "1", "2", "3",
    ]  # fmt: skip
    names = {node.name for node in graph.nodes() if isinstance(node, Parameter)}
    assert names == {n for n in small().state_shapes() if "num_b" not in n}


def test_an_abstract_trace_draws_nothing():
    module = Sequential(Conv2d(3, 4, 3), Linear(4, 5))
    graph = module.trace((1, 5, 5, 3), abstract=True)
    assert len(list(module.initials())) == 4
    assert all(not any(n.array.strides) for n in graph.nodes() if isinstance(n, Parameter))
    assert {n.name for n in graph.nodes() if isinstance(n, Parameter)} == set(module.state_shapes())


def test_calling_runs_what_the_graph_means_in_both_layouts():
    module = small()
    (x,) = arrays((2, 6, 7, 3))
    (expected,) = evaluate(module.trace(x.shape), x)
    np.testing.assert_allclose(module(x), expected, atol=1e-5)
    turned = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(module(turned, layout="NCHW"), expected, atol=1e-5)
    features = module[:1](turned, layout="NCHW")
    assert features.shape == (2, 4, 6, 7)
    np.testing.assert_allclose(features.transpose(0, 2, 3, 1), module[0](x), atol=1e-5)
    assert module(x.astype(np.float64)[:, ::-1]).shape == (2, 2)


def test_replacing_an_array_or_a_part_compiles_anew_and_nothing_else_does():
    module = small()
    (x,) = arrays((1, 4, 4, 3))
    first = module(x)
    program = module.compile(x.shape)
    assert module.compile(x.shape) is program
    small()[0].relu = ReLU()
    assert module.compile(x.shape) is program
    module[3].bias = module[3].bias + 1
    np.testing.assert_allclose(module(x), first + 1, atol=1e-5)
    module[3] = Linear(4, 7)
    assert module(x).shape == (1, 7)
    module[0].conv2 = Conv2d(4, 4, 3, padding=1)
    assert module.compile(x.shape) is not program
    assert list(module.state_shapes())[-2:] == ["3.weight", "3.bias"]
    changed = module(x)
    module[0].bn1.eps = 10.0
    assert not np.allclose(module(x), changed)


def test_the_algorithm_is_the_callers_to_choose():
    module = Conv2d(64, 64, 3, padding=1)
    (x,) = arrays((1, 56, 56, 64))
    fast, direct = (module.compile(x.shape, algorithm=name) for name in ("auto", "direct"))
    assert {kernel.schedule for kernel in fast.program.kernels} >= {"winograd"}
    assert "winograd" not in {kernel.schedule for kernel in direct.program.kernels}
    assert module.compile(x.shape) is fast
    values = module(x, algorithm="direct")
    assert np.array_equal(values, direct(x)[0])
    assert not np.array_equal(values, module(x))
    np.testing.assert_allclose(module(x), values, atol=1e-4 * np.abs(values).max())
    with pytest.raises(ValueError, match="no algorithm 'fft'; expected auto, direct or exact"):
        module(x, algorithm="fft")


def test_exact_keeps_every_sum_in_its_order():
    """A pooled pointwise convolution may be taken the other way round, unless that is forbidden."""

    class Pooled(Module):
        def __init__(self):
            self.conv = Conv2d(24, 32, 1, bias=False)

        def forward(self, input):
            return layers.avg_pool2d(self.conv(input), 2)

    module = Pooled()
    (x,) = arrays((1, 12, 12, 24))
    plain, exact = (module.compile(x.shape, algorithm="direct", exact=one) for one in (False, True))

    def products(executable):
        return sum(s.multiply_adds for phase in executable.program.phases for s in phase)

    assert products(plain) < products(exact)
    assert np.array_equal(module(x, exact=True), exact(x)[0])
    assert module.compile(x.shape, algorithm="auto", exact=True) is exact
    np.testing.assert_allclose(module(x), exact(x)[0], atol=1e-5)


def test_programs_kept_are_few():
    module = Sequential(ReLU())
    for width in range(1, tracing.KEPT + 4):
        module.compile((1, 1, width, 1))
    assert len(module._executables._kept) == tracing.KEPT
    last = module.compile((1, 1, tracing.KEPT + 3, 1))
    assert module.compile((1, 1, tracing.KEPT + 3, 1)) is last


def test_arrays_are_read_only_and_do_not_follow_the_array_they_were_set_from():
    module = Linear(2, 2)
    with pytest.raises(ValueError, match="read-only"):
        module.weight[0] = 1
    mine = np.ones((2, 2), np.float32)
    module.weight = mine
    mine[:] = 5
    assert (module.weight == 1).all()
    with pytest.raises(TypeError, match="weight has dtype complex128"):
        module.weight = mine.astype(complex)


def test_sequential_is_a_list_of_parts():
    module = Sequential(ReLU(), Linear(2, 3), Linear(3, 4))
    assert len(module) == 3
    assert module[-1] is module[2] is list(module)[2]
    assert list(module[1:].parts()) == ["1", "2"]
    assert module[1:][0] is module[1]
    with pytest.raises(IndexError, match="part 3 of a Sequential with 3 parts"):
        module[3]
    module.append(ReLU())
    assert list(module.parts()) == ["0", "1", "2", "3"]
    del module[0]
    assert list(module.parts()) == ["1", "2", "3"]
    named = Sequential(norm=BatchNorm2d(2), relu=ReLU())
    assert list(named.parts()) == ["norm", "relu"]


def test_what_a_module_lacks_is_said():
    module = Block()
    with pytest.raises(AttributeError, match="no attribute 'conv3'; its parts are conv1, bn1"):
        module.conv3  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'conv3'"):
        del module.conv3
    del module.relu
    assert "relu" not in module.parts()
    assert "conv1" in dir(module)
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        Module()(Input("x", (1,)))


def test_errors_name_the_part():
    module = small()
    with pytest.raises(ValueError, match="has 2 features") as caught:
        module(np.zeros((1, 4, 4, 2), np.float32))
    assert caught.value.__notes__ == ["in 0.conv1"]
    with pytest.raises(ValueError, match="expected 'NHWC'"):
        module(np.zeros((1, 4, 4, 3), np.float32), layout="HWC")
    with pytest.raises(TypeError, match="Sequential: input is str"):
        module("cat.jpg")
    with pytest.raises(ValueError, match="size is 0"):
        module.trace((0, 4, 4, 3))


def test_copies_are_modules_of_their_own():
    module = small()
    (x,) = arrays((1, 4, 4, 3))
    first = module(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module[2:]))):
        assert list(other.parts())[-1] == "3"
        other[-1].bias = np.full(2, 9, np.float32)
    assert (module(x) == first).all()
    assert not np.array_equal(copy.copy(module)._serial, module._serial)
    twin = copy.deepcopy(module)
    twin[3].bias = twin[3].bias + 1
    np.testing.assert_allclose(twin(x), first + 1, atol=1e-5)


def test_modules_check_what_they_are_made_of():
    with pytest.raises(ValueError, match="2 groups do not divide 3 and 4"):
        Conv2d(3, 4, 1, groups=2)
    with pytest.raises(TypeError, match=r"in_features is 1\.5"):
        Linear(1.5, 2)
    with pytest.raises(ValueError, match="num_features is 0"):
        BatchNorm2d(0)


def test_a_printed_module_shows_its_parts():
    text = repr(small())
    assert "conv1: Conv2d(stride=1, padding=1, dilation=1, groups=1)" in text
    assert "bn1: BatchNorm2d(eps=1e-05, momentum=0.1)" in text


def test_random_weights_are_drawn_within_their_bound():
    weight = Conv2d(16, 32, 3).weight
    bound = (16 * 9) ** -0.5
    assert np.abs(weight).max() <= bound
    assert np.abs(weight).max() > 0.9 * bound
    assert abs(weight.mean()) < 0.05 * bound
