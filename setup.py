"""Compile the shim while Clawback is built or installed, where there is a C compiler; all else is in pyproject.toml."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

HERE = Path(__file__).resolve().parent
PACKAGE = Path("clawback", "enforcement", "native")


class WithProgram(Distribution):
    """Compiles once; whether that went well decides of which kind the wheel is."""

    compiled: Path | None = None
    tried = False

    def program(self) -> Path | None:
        """The compiled shim, None where there is none."""
        if not self.tried:
            self.tried = True
            # By its path: there is no package yet.
            builder = runpy.run_path(str(HERE / "enforcement" / "native" / "build.py"))
            folder = HERE / "build" / "native"
            problem = builder["compile_into"](folder)
            if problem:
                sys.stderr.write(f"no {builder['NAME']}, sandboxes will be made in Python: {problem}\n")
            else:
                self.compiled = folder / builder["NAME"]
        return self.compiled

    def has_ext_modules(self) -> bool:
        """What is compiled belongs to one platform."""
        return self.program() is not None


class BuildWithProgram(build_py):
    """Puts the shim beside the modules: in the source tree for an editable install, else into what is packed."""

    def run(self) -> None:
        """As always, and the program."""
        super().run()
        program = self.distribution.program()
        if program is None:
            return
        folder = HERE / "enforcement" / "native" if self.editable_mode else Path(self.build_lib) / PACKAGE
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{program.name}"
        fresh.write_bytes(program.read_bytes())
        fresh.chmod(0o755)
        fresh.replace(folder / program.name)


class WheelOfProgram(bdist_wheel):
    """The shim is a program by itself: any Python runs it, on this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-PLATFORM with the program, py3-none-any without."""
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if not self.root_is_pure else (python, abi, platform)


setup(distclass=WithProgram, cmdclass={"build_py": BuildWithProgram, "bdist_wheel": WheelOfProgram})
