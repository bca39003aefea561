"""A dense map of a 1024 x 768 photo against cropping its windows: seconds, and peak memory.

    python benchmarks/dense_maps.py [NETWORK[:STRIDE]]...

Both give a score of every class in the same cells. Crops run through the classifier in batches of
eight; how long all of them would take is said by the first ones. The memory is that of activations,
the image and the scores.
"""

import sys
import time

import numpy as np

import striate as st
from striate.vision.dense import CROPS

ROWS, COLUMNS = 768, 1024
CASES = (
    *("efficientnet_lite0:32", "efficientnet_lite0:16", "efficientnet_lite0:8"),
    *("mobilenet_v2:32", "mobilenet_v2:8", "resnet18:32", "resnet18:8", "resnet50:32"),
    *("squeezenet1_1:16", "googlenet:32", "alexnet:32", "vgg16:32"),
)
BATCHES = 4


def seconds(run, times=3):
    """The least of some runs, after one that does not count."""
    run()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    image = np.random.default_rng(0).standard_normal((1, ROWS, COLUMNS, 3), np.float32)
    print("| network | output stride | cells | dense map | crops | ratio | MB | strips |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in sys.argv[1:] or CASES:
        name, _, stride = case.partition(":")
        model = st.models.create(name)
        dense = st.dense(model, int(stride or 32))
        shape = dense.geometry_for((ROWS, COLUMNS)).shape
        strips = len(list(dense.strips(image[0])))
        whole = seconds(lambda dense=dense: dense(image), times=2)
        height, width = dense.window
        crops = np.ascontiguousarray(np.repeat(image[:, :height, :width], CROPS, 0))
        batch = seconds(lambda model=model, crops=crops: model(crops), times=BATCHES)
        cells = shape[0] * shape[1]
        cropped = batch * cells / CROPS
        taken = dense.bytes_for((ROWS, COLUMNS)) / 1e6
        print(
            f"| {name} | {dense.stride[0]} | {shape[0]} x {shape[1]} | {whole:.2f} s | "
            f"{cropped:.1f} s | {cropped / whole:.0f} | {taken:.0f} | {strips} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
