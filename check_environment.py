"""
End with one line where `make` cannot build its environment, before anything is downloaded.

python check_environment.py FOLDER ROS_DISTRO
"""

# In old syntax: the Pythons that this rejects must be able to read it.
from glob import glob
import os
import platform
import sys
import sysconfig

DISTRIBUTIONS = ('jazzy', 'kilted')
OLDEST, NEWEST = (3, 10), (3, 14)
GLIBC = (2, 28)


def main(folder, distribution):
    """Exit with the first problem."""
    sys.exit(python_problem() or machine_problem() or module_problem()
             or distribution_problem(distribution) or mix_problem(folder, distribution))


def python_problem():
    """Return why there are no wheels for this interpreter, or None."""
    name = platform.python_implementation()
    if sysconfig.get_config_var('Py_GIL_DISABLED'):
        name = 'free-threaded ' + name
    if name == 'CPython' and OLDEST <= sys.version_info[:2] <= NEWEST:
        return None
    return ('{} is {} {}, but the wheels are for CPython {}.{} to {}.{}: choose one of these, for '
            'example PYTHON=python3.12'.format(sys.executable, name, platform.python_version(),
                                               *(OLDEST + NEWEST)))


def machine_problem():
    """Return why there are no wheels for this machine, or None."""
    system = sysconfig.get_platform()
    libc, version = platform.libc_ver()
    if system == 'linux-x86_64':
        if sys.maxsize < 2**32:
            system += ' with a 32-bit Python'
        elif libc != 'glibc':
            system += ' without glibc'
        elif tuple(map(int, version.split('.'))) < GLIBC:
            system += ' with glibc ' + version
        else:
            return None
    return ('this is {}, but the wheels are for linux-x86_64 with glibc {}.{} or newer: use a ROS '
            'installation (docs/installation.md)'.format(system, *GLIBC))


def module_problem():
    """Return which part of the standard library Debian has not installed, or None."""
    for module in ('venv', 'ensurepip'):
        try:
            __import__(module)
        except ImportError:
            return ('{} has no module {}: on Debian and Ubuntu, apt install python{}.{}-venv'
                    .format(sys.executable, module, *sys.version_info[:2]))
    return None


def distribution_problem(distribution):
    """Return why there are no wheels of this ROS distribution, or None."""
    if distribution in DISTRIBUTIONS:
        return None
    return 'ROS_DISTRO={}, but wheels are pinned for {} only'.format(
        distribution, ' and '.join(DISTRIBUTIONS))


def mix_problem(folder, distribution):
    """Return what the folder holds of another Python or ROS distribution, or None."""
    version = '{}.{}'.format(*sys.version_info[:2])
    asked = ['Python ' + version, 'ROS 2 ' + distribution]
    for packages in glob(os.path.join(folder, 'lib', 'python*', 'site-packages')):
        held = [os.path.basename(os.path.dirname(packages)).replace('python', 'Python ')]
        held += sorted('ROS 2 ' + os.path.basename(path).split('_')[1] for path in
                       glob(os.path.join(packages, 'ros_*_rclpy-*.dist-info')))
        if held != asked[:len(held)]:
            return ('{} holds {}: for {} choose another folder, for example VENV={}-{}'.format(
                folder, ', '.join(held), ', '.join(asked), folder.rstrip('/'),
                distribution if held[0] == asked[0] else version))
    return None


if __name__ == '__main__':
    main(*sys.argv[1:])
