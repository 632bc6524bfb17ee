# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages in the user's language. That the catalogues are complete is `tools/update-po --check`."""
import os
import shutil
import subprocess

import pytest

import vmtest


@pytest.fixture(scope='module')
def spanish(tmp_path_factory):
    """An environment for Spanish, with a locale of our own: few machines have es_ES generated."""
    if not shutil.which('localedef') or not os.path.exists('/usr/share/i18n/locales/es_ES'):
        pytest.skip('no sources of locales here (Debian: package locales)')
    folder = tmp_path_factory.mktemp('locale')
    subprocess.run(['localedef', '-i', 'es_ES', '-f', 'UTF-8', folder / 'es_ES.UTF-8'], check=True)
    return {**os.environ, 'LOCPATH': str(folder), 'LC_ALL': 'es_ES.UTF-8'}


def run(env, *argv):
    return subprocess.run([vmtest.PROGRAM, *argv], check=False, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, env=env)


def test_help_is_spanish(spanish):
    done = run(spanish, 'run', '--help')
    assert done.returncode == 0
    assert 'Uso: posada run' in done.stdout
    assert 'línea de órdenes del núcleo' in done.stdout      # a row of the option table
    assert '(de 1 a 64) [predeterminado: 1]' in done.stdout  # facts added to a row
    assert 'el huésped notificó un pánico' in done.stdout    # a row of exitcodes.def
    assert 'Usage' not in done.stdout and 'default:' not in done.stdout


def test_errors_are_spanish(spanish, tmp_path):
    """From the command line's process, and from the VM's."""
    done = run(spanish, 'run', '--cpus', 'dos')
    assert done.returncode == 2
    assert '«dos» no es un número válido' in done.stderr
    kernel = tmp_path / 'texto'
    kernel.write_text('esto no es un núcleo\n' * 400)
    done = run(spanish, 'run', '--kernel', kernel)
    assert done.returncode == 1
    assert 'posada-vmm: ' in done.stderr and 'no es un núcleo: no es un bzImage' in done.stderr


@pytest.mark.parametrize('language', ['C', 'C.UTF-8', 'nowhere_XX.UTF-8'])
def test_other_languages_are_english(language):
    done = run({**os.environ, 'LC_ALL': language}, 'run', '--help')
    assert done.returncode == 0 and done.stdout.startswith('Usage: posada run')
