"""Equations as a user writes them, of layers that have no name here, against plain NumPy."""

import importlib

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import striate as st


def arrays(**shapes):
    generator = np.random.default_rng(sum(map(sum, shapes.values())))
    return {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def padded(x, margin, axes):
    return np.pad(x, [(margin, margin) if axis in axes else (0, 0) for axis in range(x.ndim)])


def windows(x, sizes, axes, margin=0):
    """The windows of `x` along `axes`, their places last."""
    return sliding_window_view(padded(x, margin, axes), sizes, axes)


def locally_connected(W, x):
    return np.einsum("pquvij,bpqiuv->bpqj", W, windows(x, (3, 3), (1, 2)), optimize=True)


def correlation(f, g):
    shifted = windows(g, f.shape[1:3], (1, 2), margin=4)
    return np.einsum("bpqi,bdeipq->bpqde", f, shifted, optimize=True)


def matching(t, x):
    return np.einsum("pquv,uv->pq", windows(x, t.shape, (0, 1)), t, optimize=True)


def unfold(x):
    return windows(x, (3, 3), (1, 2), margin=1).transpose(0, 1, 2, 4, 5, 3)


def blur(x):
    return windows(x, (5, 5), (1, 2), margin=2).mean((-2, -1))


def sharpen(k, x):
    return np.einsum("bpqiuv,uv->bpqi", windows(x, (3, 3), (1, 2), margin=1), k)


def convolve_1d(W, x):
    return np.einsum("btiu,uij->btj", windows(x, (9,), (1,), margin=4), W, optimize=True)


def convolve_3d(W, x):
    seen = windows(x, (3, 3, 3), (1, 2, 3), margin=1)
    return np.einsum("bpqriuvw,uvwij->bpqrj", seen, W, optimize=True)


def convolve_channels_first(W, x, B):
    seen = windows(x, (3, 3), (2, 3), margin=1)
    return np.einsum("bipquv,jiuv->bjpq", seen, W, optimize=True) + B[:, None, None]


def causal(W, x):
    before = np.pad(x, ((0, 0), (8, 0), (0, 0)))
    return np.einsum("btiu,uij->btj", sliding_window_view(before, 3, 1)[:, :, :, ::-1][:, 6:], W)


def transposed(W, x):
    rows, columns = 2 * x.shape[1] + 1, 2 * x.shape[2] + 1
    y = np.zeros((x.shape[0], rows, columns, W.shape[3]), np.float32)
    for u in range(3):
        for v in range(3):
            y[:, u : u + rows - 2 : 2, v : v + columns - 2 : 2] += x @ W[u, v]
    return y


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def bilinear(x, W, y):
    return np.einsum("bi,ijk,bk->bj", x, W, y, optimize=True)


def scores(q, k):
    return np.einsum("bthd,brhd->bhtr", q, k, optimize=True) / 8


def moments(x):
    return x.var((1, 2))


def distances(a, b):
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def dilate(x, k):
    seen = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return (sliding_window_view(seen, (3, 3), (1, 2)) + k).max((-2, -1))


def gram(x):
    return np.einsum("bpqi,bpqj->bij", x, x, optimize=True)


def sobel(x, k):
    seen = windows(x, (3, 3), (0, 1), margin=1)
    return np.sqrt(np.einsum("pquv,uv->pq", seen, k) ** 2 + np.einsum("pquv,vu->pq", seen, k) ** 2)


CASES = {
    "locally connected": (
        "y[b,p,q,j] = sum[u,v,i](W[p,q,u,v,i,j] * x[b,p+u,q+v,i])",
        arrays(W=(26, 26, 3, 3, 16, 16), x=(4, 28, 28, 16)),
        {},
        locally_connected,
    ),
    "correlation of two images": (
        "c[b,p,q,d,e] = sum[i](f[b,p,q,i] * g[b,p+d-4,q+e-4,i])",
        arrays(f=(1, 24, 32, 64), g=(1, 24, 32, 64)),
        {"d": 9, "e": 9},
        correlation,
    ),
    "template matching": (
        "c[p,q] = sum[u,v](t[u,v] * x[p+u,q+v])",
        arrays(t=(15, 13), x=(200, 300)),
        {},
        matching,
    ),
    "unfold": (
        "z[b,p,q,u,v,i] = x[b,p+u-1,q+v-1,i]",
        arrays(x=(2, 56, 56, 64)),
        {"u": 3, "v": 3},
        unfold,
    ),
    "box blur": (
        "y[b,p,q,i] = sum[u,v](x[b,p+u-2,q+v-2,i]) / 25",
        arrays(x=(2, 112, 112, 3)),
        {"u": 5, "v": 5},
        blur,
    ),
    "filter": (
        "y[b,p,q,i] = sum[u,v](k[u,v] * x[b,p+u-1,q+v-1,i])",
        arrays(k=(3, 3), x=(2, 112, 112, 3)),
        {},
        sharpen,
    ),
    "edges": (
        "y[p,q] = sqrt(sum[u,v](k[u,v] * x[p+u-1,q+v-1]) ** 2"
        " + sum[u,v](k[v,u] * x[p+u-1,q+v-1]) ** 2)",
        arrays(x=(240, 320), k=(3, 3)),
        {},
        sobel,
    ),
    "1D convolution": (
        "y[b,t,j] = sum[u,i](W[u,i,j] * x[b,t+u-4,i])",
        arrays(W=(9, 32, 64), x=(4, 1000, 32)),
        {},
        convolve_1d,
    ),
    "causal dilated convolution": (
        "y[b,t,j] = sum[u,i](W[u,i,j] * x[b,t-u,i])",
        arrays(W=(3, 16, 24), x=(2, 500, 16)),
        {"t": 500},
        causal,
    ),
    "3D convolution": (
        "y[b,p,q,r,j] = sum[u,v,w,i](W[u,v,w,i,j] * x[b,p+u-1,q+v-1,r+w-1,i])",
        arrays(W=(3, 3, 3, 8, 16), x=(1, 16, 16, 16, 8)),
        {},
        convolve_3d,
    ),
    "convolution with features first": (
        "y[b,j,p,q] = sum[i,u,v](W[j,i,u,v] * x[b,i,p+u-1,q+v-1]) + B[j]",
        arrays(W=(48, 32, 3, 3), x=(2, 32, 28, 28), B=(48,)),
        {},
        convolve_channels_first,
    ),
    "transposed convolution": (
        "y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b,(p-u)/2,(q-v)/2,i])",
        arrays(W=(3, 3, 32, 24), x=(2, 14, 15, 32)),
        {"p": 29, "q": 31},
        transposed,
    ),
    "batched matrix product": (
        "c[n,i,j] = sum[k](a[n,i,k] * b[n,k,j])",
        arrays(a=(8, 100, 64), b=(8, 64, 120)),
        {},
        lambda a, b: a @ b,
    ),
    "matrix product with a transpose": (
        "c[i,j] = sum[k](a[i,k] * b[j,k])",
        arrays(a=(300, 200), b=(250, 200)),
        {},
        lambda a, b: a @ b.T,
    ),
    "matrix times vector": (
        "y[i] = sum[k](M[i,k] * v[k])",
        arrays(M=(1000, 700), v=(700,)),
        {},
        lambda M, v: M @ v,
    ),
    "vector times matrix": (
        "y[j] = sum[k](M[k,j] * v[k])",
        arrays(M=(700, 1000), v=(700,)),
        {},
        lambda M, v: v @ M,
    ),
    "outer product": (
        "c[i,j] = a[i] * b[j]",
        arrays(a=(1000,), b=(700,)),
        {},
        np.outer,
    ),
    "softmax over channels": (
        "y[b,p,q,i] = exp(x[b,p,q,i] - max[j](x[b,p,q,j]))"
        " / sum[k](exp(x[b,p,q,k] - max[j](x[b,p,q,j])))",
        arrays(x=(2, 28, 28, 64)),
        {},
        softmax,
    ),
    "bilinear form": (
        "z[b,j] = sum[i,k](x[b,i] * W[i,j,k] * y[b,k])",
        arrays(x=(32, 64), W=(64, 20, 48), y=(32, 48)),
        {},
        bilinear,
    ),
    "attention scores": (
        "s[b,h,t,r] = sum[d](q[b,t,h,d] * k[b,r,h,d]) / 8",
        arrays(q=(2, 100, 4, 64), k=(2, 90, 4, 64)),
        {},
        scores,
    ),
    "variance": (
        "v[b,i] = mean[p,q]((x[b,p,q,i] - mean[r,s](x[b,r,s,i])) ** 2)",
        arrays(x=(4, 28, 28, 32)),
        {},
        moments,
    ),
    "distances": (
        "d[i,j] = sqrt(sum[k]((a[i,k] - b[j,k]) ** 2))",
        arrays(a=(100, 64), b=(120, 64)),
        {},
        distances,
    ),
    "greyscale dilation": (
        "y[b,p,q,i] = max[u,v](x[b,p+u-1,q+v-1,i] + k[u,v])",
        arrays(x=(2, 56, 56, 16), k=(3, 3)),
        {},
        dilate,
    ),
    "Gram matrix": (
        "g[b,i,j] = sum[p,q](x[b,p,q,i] * x[b,p,q,j])",
        arrays(x=(2, 28, 28, 40)),
        {},
        gram,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_equation_of_ones_own_is_what_numpy_says(name):
    text, operands, sizes, reference = CASES[name]
    equation = st.equation(text)
    found = equation(**operands, sizes=sizes)
    exact = reference(**{key: value.astype(np.float64) for key, value in operands.items()})
    assert found.dtype == np.float32
    assert found.shape == exact.shape
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=3e-6 * np.abs(exact).max())


def test_an_equation_is_compiled_once_for_its_shapes(monkeypatch):
    # The package exports a function of the module's own name.
    module = importlib.import_module("striate.runtime.execute")
    compile_now, compiled = module._compile, []

    def counted(graph, threads):
        compiled.append(graph)
        return compile_now(graph, threads)

    monkeypatch.setattr(module, "_compile", counted)
    text = "y[p] = sum[u](k[u] * x[p+u]) * 3"
    equation, operands = st.equation(text), arrays(k=(3,), x=(1001,))
    first = equation(**operands)
    assert (equation(**operands) == first).all()
    assert (st.equation(text)(x=operands["x"], k=operands["k"]) == first).all()
    assert len(compiled) == 1
    assert equation(k=operands["k"], x=operands["x"][:-1]).shape == (998,)
    assert len(compiled) == 2


def test_operands_of_any_memory_order_and_kind():
    equation = st.equation("y[i,j] = a[i,j] - b[j]")
    operands = arrays(a=(30, 40), b=(30,))
    found = equation(a=operands["a"].T, b=operands["b"])
    np.testing.assert_array_equal(found, operands["a"].T - operands["b"])
    found = equation(a=operands["a"][::-3, ::2].astype(np.float64), b=np.arange(20))
    np.testing.assert_array_equal(found, operands["a"][::-3, ::2] - np.arange(20, dtype=np.float32))


def test_sums_to_a_scalar_and_products_with_one():
    operands = arrays(u=(37,), v=(37,))
    found = st.equation("y[()] = sum[k](u[k] * v[k])")(**operands)
    np.testing.assert_allclose(found, operands["u"] @ operands["v"], rtol=1e-5)
    given = {"W": np.array(2.5, np.float32), "x": operands["u"].reshape(1, 37)}
    found = st.equation("y[b] = sum[i](W[()] * x[b,i])")(**given)
    np.testing.assert_allclose(found, 2.5 * given["x"].sum(1), rtol=1e-5, atol=1e-6)
