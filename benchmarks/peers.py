"""One adapter for each engine in the race: load a network, then run it again and again.

An adapter turns a network into a `Runner`: a call without arguments that computes the same images
again and returns logits. All of them compute in float32, are told the batch beforehand and use
the settings that their makers recommend for latency.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from networks import Array, Collection, UnavailableError

Runner = Callable[[], Array]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network ready to run; `first_answer` is the time (s) from files to the first answer."""

    run: Runner
    first_answer: float


def onnxruntime(collection: Collection, name: str, batch: int, threads: int) -> Runner:
    """ONNX Runtime: all graph optimisations; its pool spins on after a call, by default."""
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("b", batch)
    options.log_severity_level = 3
    session = ort.InferenceSession(
        str(collection.filled(name)), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": collection.images(name, batch)}

    def run() -> Array:
        logits: Array = session.run(["y"], feed)[0]
        return logits

    return run


def openvino(collection: Collection, name: str, batch: int, threads: int) -> Runner:
    """OpenVINO: latency hint, one stream, float32 (its default would allow bfloat16)."""
    core = import_module("openvino").Core()
    images = collection.images(name, batch)
    model = core.read_model(str(collection.filled(name)))
    model.reshape(list(images.shape))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    tensor = import_module("openvino").Tensor(images, shared_memory=True)

    def run() -> Array:
        request.set_input_tensor(
            tensor
        )  # said here so that the closure keeps the shared memory alive
        request.infer()
        logits: Array = request.get_output_tensor().data
        return logits

    return run


def ncnn(collection: Collection, name: str, batch: int, threads: int) -> Runner:
    """ncnn: converted by pnnx; Winograd and packed layouts by default, but nothing in 16 bits."""
    module = import_module("ncnn")
    images = collection.images(name, batch)
    param, weights = _converted(collection, name, images.shape)
    net = module.Net()
    for option in (
        "fp16_packed",
        "fp16_storage",
        "fp16_arithmetic",
        "bf16_storage",
        "vulkan_compute",
    ):
        setattr(net.opt, f"use_{option}", False)
    net.opt.num_threads = threads
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise UnavailableError(f"ncnn cannot load {param}")
    shared = module.Mat(images, batch_index=0) if batch > 1 else module.Mat(images[0])
    given = shared.clone()  # a Mat made of an array does not keep the array alive

    def run() -> Array:
        with net.create_extractor() as extractor:
            extractor.input("in0", given)
            status, output = extractor.extract("out0")
        if status:
            raise UnavailableError(f"ncnn cannot run {name} at batch {batch}: it returned {status}")
        logits: Array = output.numpy(batch_index=0) if batch > 1 else np.array(output)[None]
        return logits

    return run


def _converted(collection: Collection, name: str, shape: tuple[int, ...]) -> tuple[Path, Path]:
    """The `.param` and `.bin` of ncnn, made by pnnx once for each input shape and cached."""
    source = collection.filled(name)
    stem = f"{source.stem}-b{shape[0]}"
    param, weights = (collection.cache / f"{stem}.ncnn.{kind}" for kind in ("param", "bin"))
    if not (param.is_file() and weights.is_file()):
        spec = find_spec("pnnx")
        if spec is None or spec.origin is None:
            raise UnavailableError("pnnx is not installed: pip install pnnx")
        program = Path(spec.origin).with_name("pnnx" + (".exe" if os.name == "nt" else ""))
        with tempfile.TemporaryDirectory(dir=collection.cache) as folder:
            work = Path(folder)
            os.symlink(source, work / "net.onnx")
            size = ",".join(map(str, shape))
            command = [str(program), "net.onnx", f"inputshape=[{size}]f32", "fp16=0"]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            made = work / "net.ncnn.param", work / "net.ncnn.bin"
            if done.returncode or not all(path.is_file() for path in made):
                raise UnavailableError(f"pnnx cannot convert {name}: {done.stderr.strip()[-300:]}")
            shutil.move(made[1], weights)
            shutil.move(made[0], param)
    return param, weights


def striate(
    collection: Collection, name: str, batch: int, threads: int, algorithm: str = "auto"
) -> Runner:
    """This package, with the golden weights."""
    from striate import models, weights

    model = models.create(name)
    model.load_state_dict(weights.read(collection.weights(name)))
    images = np.ascontiguousarray(collection.images(name, batch).transpose(0, 2, 3, 1))
    return lambda: model(images, threads=threads, algorithm=algorithm)


OURS = "striate"
ENGINES: Mapping[str, Callable[..., Runner]] = {
    OURS: striate,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "ncnn": ncnn,
}
_REQUIRES = {
    OURS: ("striate",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "ncnn": ("ncnn", "pnnx", "onnx"),
}


def missing(engine: str) -> tuple[str, ...]:
    """The packages that `engine` needs and that are not installed."""
    return tuple(package for package in _REQUIRES[engine] if find_spec(package) is None)


def version(engine: str) -> str:
    """The installed version of `engine`."""
    return metadata.version(engine)


def load(
    engine: str, collection: Collection, name: str, batch: int, threads: int, algorithm: str
) -> Loaded:
    """`name` on `engine`, run once; filling and converting graphs, cached, is not its time.

    `algorithm` is for Striate; the others choose for themselves.
    """
    if engine == "ncnn":
        _converted(collection, name, collection.images(name, batch).shape)
    elif engine == OURS:
        collection.weights(name)
    else:
        collection.filled(name)
    started = time.perf_counter()
    options = {"algorithm": algorithm} if engine == OURS else {}
    run = ENGINES[engine](collection, name, batch, threads, **options)
    run()
    return Loaded(run, time.perf_counter() - started)
