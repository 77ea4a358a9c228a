#!/usr/bin/env python3
"""Static libraries that stand in for libcuda, libcublas, libcudnn, ... when a program with Candle's `cuda` feature is linked.

    link_libraries.py CUDARC FOLDER        CUDARC: the source of the cudarc crate; FOLDER: where lib*.a go

Candle has cudarc link the libraries of CUDA, so a program would neither link nor start where they are missing. Each library made
here has every function that cudarc declares, as a jump through a table. At first every entry of the table leads to code that opens
the real library with dlopen, fills the table, and goes on to the function with its arguments untouched. Where there is no library,
the table is filled with a function that returns the error which that library has for "nothing here": the program starts anywhere,
and a device that is missing is an error of the call that asks for it. CUDA_LINK_DEBUG=1 prints why a library was not opened.

x86-64 Linux (System V calling convention); needs cc and ar.
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

# Link name, module of cudarc, name of the real library, and its status for "not there".
LIBRARIES = [
    ("cuda", "driver", "libcuda.so.1", 100),  # CUDA_ERROR_NO_DEVICE
    ("cublas", "cublas", "libcublas.so.13", 1),  # CUBLAS_STATUS_NOT_INITIALIZED
    ("cublasLt", "cublaslt", "libcublasLt.so.13", 1),
    ("curand", "curand", "libcurand.so.10", 101),  # CURAND_STATUS_NOT_INITIALIZED
    ("nvrtc", "nvrtc", "libnvrtc.so.13", 11),  # NVRTC_ERROR_INTERNAL_ERROR
    ("cudnn", "cudnn", "libcudnn.so.9", 1001),  # CUDNN_STATUS_NOT_INITIALIZED
]

# One declaration of a foreign function on a line: its name and what it returns.
DECLARATION = re.compile(r"^\s*(?:pub )?fn (\w+)\(.*\)\s*(?:->\s*([^;{]+?))?\s*;\s*$")

OPENER = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNT = %(count)d };
static const char *const names[COUNT] = { %(names)s };
/* What a missing function returns: s, a status; t, a text; z, zero. */
static const char kinds[COUNT + 1] = "%(kinds)s";
extern void *table_%(name)s[COUNT] __attribute__((visibility("hidden")));

static long status(void) { return %(status)d; }
static const char *text(void) { return "%(soname)s could not be opened"; }
static long zero(void) { return 0; }

/* Threads may race: each writes the same pointers, one store each, and dlopen counts. */
__attribute__((visibility("hidden"))) void fill_table_%(name)s(void) {
  void *library = dlopen("%(soname)s", RTLD_NOW | RTLD_GLOBAL);
  if (!library && getenv("CUDA_LINK_DEBUG")) fprintf(stderr, "%%s\\n", dlerror());
  for (int i = 0; i < COUNT; i++) {
    void *function = library ? dlsym(library, names[i]) : 0;
    if (!function) function = kinds[i] == 't' ? (void *)text : kinds[i] == 'z' ? (void *)zero : (void *)status;
    __atomic_store_n(&table_%(name)s[i], function, __ATOMIC_RELEASE);
  }
}
"""

# Registers that carry arguments (rax: the number of vector arguments; r10: a static chain), and the index in r11. On entry the
# stack is 8 off a multiple of 16; nine words and 128 bytes leave it 0 off.
SAVED = ["rax", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11"]


def first_call(library: str) -> str:
    lines = [f"first_call_{library}:"]
    lines += [f"  pushq %{register}" for register in SAVED]
    lines += ["  subq $128, %rsp"]
    lines += [f"  movups %xmm{i}, {16 * i}(%rsp)" for i in range(8)]
    lines += [f"  call fill_table_{library}"]
    lines += [f"  movups {16 * i}(%rsp), %xmm{i}" for i in range(8)]
    lines += ["  addq $128, %rsp"]
    lines += [f"  popq %{register}" for register in reversed(SAVED)]
    lines += ["  pushq %rax", f"  leaq table_{library}(%rip), %rax", "  movq (%rax,%r11,8), %r11", "  popq %rax", "  jmp *%r11"]
    return "\n".join(lines)


def assembly(library: str, functions: list[str]) -> str:
    parts = ["  .text", first_call(library)]
    for i, name in enumerate(functions):
        parts.append(f"  .globl {name}\n  .type {name}, @function\n{name}:\n  jmp *table_{library}+{8 * i}(%rip)")
        parts.append(f"first_{i}:\n  movl ${i}, %r11d\n  jmp first_call_{library}")
    table = f"table_{library}"
    parts.append(f'  .section .data.rel.local, "aw"\n  .balign 8\n  .globl {table}\n  .hidden {table}\n{table}:')
    parts += [f"  .quad first_{i}" for i in range(len(functions))]
    parts.append('  .section .note.GNU-stack, "", @progbits\n')
    return "\n".join(parts)


def kind(returned: str) -> str:
    return "t" if "c_char" in returned else "z" if returned in ("usize", "()") else "s"


def make(cudarc: Path, folder: Path, name: str, module: str, soname: str, status: int) -> int:
    declared = {}
    for line in (cudarc / "src" / module / "sys" / "mod.rs").read_text().splitlines():
        if found := DECLARATION.match(line):
            declared.setdefault(found[1], found[2] or "()")
    if not declared:
        sys.exit(f"{cudarc}: no functions of {name}; has cudarc changed the form of its bindings?")
    functions = sorted(declared)
    opener, jumps = folder / f"{name}_opener.c", folder / f"{name}_jumps.S"
    opener.write_text(
        OPENER
        % {
            "name": name,
            "count": len(functions),
            "names": ", ".join(f'"{function}"' for function in functions),
            "kinds": "".join(kind(declared[function]) for function in functions),
            "soname": soname,
            "status": status,
        }
    )
    jumps.write_text(assembly(name, functions))
    objects = [source.with_suffix(".o") for source in (opener, jumps)]
    for source, target in zip((opener, jumps), objects):
        subprocess.check_call([os.environ.get("CC", "cc"), "-O2", "-fPIC", "-c", "-o", target, source])
    library = folder / f"lib{name}.a"
    library.unlink(missing_ok=True)
    subprocess.check_call([os.environ.get("AR", "ar"), "rcs", library, *objects])
    for left in (opener, jumps, *objects):
        left.unlink()
    return len(functions)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if platform.machine() != "x86_64" or sys.platform != "linux":
        sys.exit("these libraries are for x86-64 Linux; elsewhere build with an installed CUDA toolkit (docs/cuda.md)")
    cudarc, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for name, module, soname, status in LIBRARIES:
        count = make(cudarc, folder, name, module, soname, status)
        print(f"lib{name}.a: {count} functions of {soname}")


if __name__ == "__main__":
    main()
