"""What of the thread team depends on the CPU: its name, pauses, denormals, system calls."""

import platform

# The numbers of Linux's system calls futex and sched_setaffinity by machine.
SYSTEM_CALLS = {"x86_64": (202, 203), "aarch64": (98, 122)}
# What futex does, for threads of this process alone.
WAIT, WAKE, WAIT_BITSET, WAKE_BITSET = 128, 129, 137, 138
# Rounding to nearest, no traps, denormals read and written as zero: they run 40 times slower.
_MXCSR = 0x9FC0


def machine() -> str:
    """This CPU's architecture in one spelling."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def cpu(architecture: str) -> str:
    """What depends on the CPU: a pause in a waiting loop, and the treatment of denormals."""
    if architecture == "x86_64":
        return f"""
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @pause() alwaysinline {{
  call void @llvm.x86.sse2.pause()
  ret void
}}
define internal i32 @flush_denormals() {{
  %old = alloca i32
  %new = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  store i32 {_MXCSR}, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  %mode = load i32, ptr %old
  ret i32 %mode
}}
define internal void @restore(i32 %mode) {{
  %old = alloca i32
  store i32 %mode, ptr %old
  call void @llvm.x86.sse.ldmxcsr(ptr %old)
  ret void
}}
"""
    # On Arm `yield` does nothing; a barrier for instructions waits about as long as x86's pause.
    arm = architecture == "aarch64"
    declaration = "declare void @llvm.aarch64.isb(i32)" if arm else ""
    pause = "call void @llvm.aarch64.isb(i32 15)" if arm else ""
    return f"""
{declaration}
define internal void @pause() alwaysinline {{
  {pause}
  ret void
}}
define internal i32 @flush_denormals() {{
  ret i32 0
}}
define internal void @restore(i32 %mode) {{
  ret void
}}
"""
