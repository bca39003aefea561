"""Objects cut out by 8 pixels inside and 8 outside: by hypercolumns, and by colours alone.

    python benchmarks/segmentation.py [--draws 5]

Intersection over union with the known masks of the ten pictures of `tests/masked_pictures.py`, the
mean of several draws of the pixels. Both ways learn by the same classifier; the colours are red,
green, blue and all their products.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


def main() -> None:
    from test_segmentation import PICTURES, scores

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5)
    draws = parser.parse_args().draws
    print("| picture | hypercolumns | colours |\n| --- | ---: | ---: |")
    totals = []
    for name, picture in PICTURES.items():
        found = [scores(picture, seed) for seed in range(draws)]
        totals.append([statistics.mean(column) for column in zip(*found, strict=True)])
        print(f"| {name} | {totals[-1][0]:.3f} | {totals[-1][1]:.3f} |", flush=True)
    means = [statistics.mean(column) for column in zip(*totals, strict=True)]
    print(f"| mean | {means[0]:.3f} | {means[1]:.3f} |")


if __name__ == "__main__":
    main()
