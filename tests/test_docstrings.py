"""What the docstrings of public functions have to say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import memrl_jax

PACKAGE = Path(memrl_jax.__file__).parent
ARRAYS = re.compile(r"\b(Array|ndarray|TimeStep|Segment|Sample)\b")
SHAPE = re.compile(r"\[.*\]", re.DOTALL)
# What they say of arrays is said by the types that they take or return.
WITHOUT = {"normalize.normalizer", "types.empty_record"}
# Of an environment, its class says what observations and actions are.
OF_GYMNAX = {"reset_env", "step_env", "is_truncated"}


def public(body: list[ast.stmt], of: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Name the public functions and methods of a module, `__call__` among them."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{of}.{node.name}")
        if isinstance(node, ast.FunctionDef) and (node.name[0] != "_" or node.name == "__call__"):
            yield f"{of}.{node.name}", node


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield from public(ast.parse(path.read_text()).body, module)


def hints(function: ast.FunctionDef) -> str:
    given = [x.annotation for x in [*function.args.args, *function.args.kwonlyargs]]
    return " ".join(ast.unparse(x) for x in [*given, function.returns] if x is not None)


def test_public_functions_of_arrays_tell_their_shapes() -> None:
    own = ((name, f) for name, f in functions() if f.name not in OF_GYMNAX)
    of_arrays = {name: f for name, f in own if ARRAYS.search(hints(f))}
    silent = {name for name, f in of_arrays.items() if not SHAPE.search(ast.get_docstring(f) or "")}
    assert len(of_arrays) > 200
    assert silent == WITHOUT
