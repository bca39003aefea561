"""Do products by pairs of terms (Winograd's inner product) pay on this CPU?

Each layer is compiled twice, as for a CPU whose additions take multiply-adds' time and as for one
that adds beside them; the two take turns. Where the second is faster, the CPU's name belongs in
`striate.compiler.target`.
"""

from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from striate.compiler import compile_graph
from striate.compiler.target import Target
from striate.layers import conv2d, relu
from striate.network.graph import Graph, Input
from striate.runtime import Executable
from striate.runtime.peak import fma_peak

# Pixels on a side, channels, features, side of the filter.
LAYERS = [
    (56, 64, 256, 1),
    (28, 512, 128, 1),
    (14, 256, 1024, 1),
    (14, 256, 256, 3),
    (7, 512, 2048, 1),
]
ROUNDS = 60


def layer(size: int, channels: int, features: int, side: int) -> Graph:
    """One convolution of random weights."""
    generator = np.random.default_rng(size)
    x = Input("x", (1, size, size, channels))
    weights = generator.uniform(-1, 1, (side, side, channels, features)).astype(np.float32)
    return Graph((x,), (relu(conv2d(x, weights, padding=side // 2)),))


def main() -> None:
    """Print a row for each layer."""
    host = Target.host()
    table = Table("pixels", "channels", "features", "filter", "plain", "pairs", "ratio")
    for size, channels, features, side in LAYERS:
        graph = layer(size, channels, features, side)
        image = np.random.default_rng(0).uniform(0, 1, (1, size, size, channels)).astype(np.float32)
        made = [
            Executable(compile_graph(graph, replace(host, adders=adders)), 1)
            for adders in (False, True)
        ]
        times = [[sum(each.profile(image, repeat=3)) for each in made] for _ in range(ROUNDS)]
        plain, pairs = np.median(times, axis=0)
        work = 2e-9 * size * size * channels * features * side * side
        table.add_row(
            f"{size} x {size}",
            str(channels),
            str(features),
            f"{side} x {side}",
            *[f"{work / seconds:.0f}" for seconds in (plain, pairs)],
            f"{plain / pairs:.2f}",
        )
    console = Console()
    console.print(f"{host.cpu}, one thread; GFLOP/s, of {fma_peak():.0f} that multiply-adds reach")
    console.print(table)


if __name__ == "__main__":
    main()
