"""Takes the native module out of a CMake build tree of this repository.

PREDELLA_BUILD_DIR names one that is configured; without it a release build is
made beside the sources.
"""
import os
import shutil
import subprocess

from setuptools import Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))


class CMakeBuild(build_ext):
    def build_extension(self, ext):
        tree = os.environ.get('PREDELLA_BUILD_DIR')
        if not tree:
            tree = os.path.join(SOURCE, 'build', 'release')
            subprocess.check_call(['cmake', '--preset', 'release'], cwd=SOURCE)
        subprocess.check_call(
            ['cmake', '--build', tree, '--target', 'predella_native'])
        target = self.get_ext_fullpath(ext.name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(
            os.path.join(tree, 'python', os.path.basename(target)), target)


setup(ext_modules=[Extension('predella_native', sources=[])],
      cmdclass={'build_ext': CMakeBuild})
