"""Loading object code: sharing, lifetime, and refusal of what isn't for this machine."""

import ctypes
import gc
import struct
import time
from dataclasses import replace

import pytest
from runtime_kernels import assemble, kernel

from striate.runtime.link import Image
from striate.runtime.loader import ObjectCode, load, loaded_count


def test_equal_code_is_loaded_once_and_freed_with_its_last_user() -> None:
    gc.collect()
    before = loaded_count()
    one = load([kernel("advance", "share_a"), kernel("slow", "share_b")])
    two = load([kernel("slow", "share_b"), kernel("reverse", "share_c")])
    assert two[0] is one[1]
    assert len({each.address for each in (*one, *two)}) == 3
    assert loaded_count() == before + 3
    del one
    gc.collect()
    assert loaded_count() == before + 2
    del two
    gc.collect()
    assert loaded_count() == before


def test_other_code_of_the_same_name_is_loaded_beside_it() -> None:
    codes = [kernel("advance", "twin"), kernel("slow", "twin"), kernel("advance", "twin")]
    first, second, third = load(codes)
    assert first is third
    assert first.address != second.address


@pytest.mark.parametrize("code", [b"", b"\x7fELF", b"junk" * 100])
def test_what_is_no_object_file_is_refused(code: bytes) -> None:
    with pytest.raises(
        RuntimeError, match="the code of odd cannot be loaded: it is no object file"
    ):
        load([ObjectCode("odd", code)])


def test_code_for_another_machine_is_refused() -> None:
    import platform

    here_arm = platform.machine().lower() in ("aarch64", "arm64")
    other = "x86_64" if here_arm else "aarch64"
    code = assemble("define void @f() { ret void }", f"{other}-unknown-linux-gnu")
    with pytest.raises(RuntimeError, match=f"the code of f is for {other}, this machine is"):
        load([ObjectCode("f", code)])


def test_a_missing_function_is_named() -> None:
    code = replace(kernel("advance", "here"), symbol="elsewhere")
    with pytest.raises(RuntimeError, match="elsewhere does not export that function"):
        load([code])


def test_loading_a_network_takes_little_time() -> None:
    codes = [kernel("slow", f"timed_{number}") for number in range(60)]
    load(codes[:1])
    start = time.process_time()
    functions = load(codes)
    spent = time.process_time() - start
    assert len({each.address for each in functions}) == 60
    # 5 ms alone on the machine that the limit of 50 ms was set on.
    assert spent < 0.25, f"60 kernels took {spent:.3f} s to load"


def test_constants_of_arm_code_are_found_from_its_instructions() -> None:
    """An ADRP and an LDR lead to the constant, wherever the object lies in the image."""
    text = """
    define <4 x float> @NAME(<4 x float> %x) {
      %y = fadd <4 x float> %x, <float 1.5, float 2.5, float 3.5, float 4.5>
      ret <4 x float> %y
    }"""
    image = Image()
    for name in ("first", "second"):
        image.add(assemble(text.replace("NAME", name), "aarch64-unknown-linux-gnu"))
        image.content += bytes(5000)
    for name in ("first", "second"):
        place = image.functions[name]
        page, load_vector = struct.unpack_from("<II", image.content, place)
        pages = (page >> 5 & 0x7FFFF) << 2 | page >> 29 & 3
        pages -= (pages & 1 << 20) << 1
        where = (place // 4096 + pages) * 4096 + (load_vector >> 10 & 0xFFF) * 16
        assert struct.unpack_from("<4f", image.content, where) == (1.5, 2.5, 3.5, 4.5)


def test_functions_of_the_c_library_are_reached() -> None:
    text = """
    declare float @rintf(float)
    define void @round(ptr %pointers, i64 %chunk, ptr %scratch) {
      %x = load float, ptr %scratch
      %y = call float @rintf(float %x)
      store float %y, ptr %scratch
      ret void
    }"""
    (function,) = load([ObjectCode("round", assemble(text))])
    value = ctypes.c_float(2.7)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    kind(function.address)(None, 0, ctypes.addressof(value))
    assert value.value == 3.0
    unknown = assemble(text.replace("rintf", "no_such_function"))
    with pytest.raises(RuntimeError, match="needs 'no_such_function', which the C library"):
        load([ObjectCode("round", unknown)])


def test_a_damaged_object_file_is_refused() -> None:
    whole = kernel("advance", "cut").code
    for length in range(64, len(whole), 97):
        with pytest.raises(RuntimeError, match="the code of cut cannot be loaded"):
            load([ObjectCode("cut", whole[:length])])
