#!/usr/bin/env bash
# What a stranger does, as the pages say it, in a folder that has nothing but the tracked files and Python; each step timed.
#   scripts/fresh.sh                    every step, in a copy of the last commit: about 50 minutes on two cores
#   scripts/fresh.sh wheel check        some of them
#   HERE=1 scripts/fresh.sh wheel       in this checkout and its .venv, without a copy
# Steps: demo, test, wheel (in a bare environment; with HERE=1 beside .venv's packages), notebooks, docs, check.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --help ]; then
  sed -n '2,6p' scripts/fresh.sh | cut -c3-
  exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "${HERE:-}" ]; then
  mkdir "$work/hspace"
  git archive HEAD | tar -x -C "$work/hspace"
  cd "$work/hspace"
fi
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1

demo() { make -s demo && test -s outputs/demo/figures/demo.png; }
test_() { make -s test; }
notebooks() { .venv/bin/python -m pytest -q tests/test_notebooks.py; }
docs() { make -s docs && test -s outputs/site/index.html; }
check() { .venv/bin/python -m pip check; }

wheel() {
  make -s .venv/.installed
  .venv/bin/python -m pip wheel -q --no-deps -w "$work" .
  .venv/bin/python - "$work" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("hspace-*.whl")
names = set(zipfile.ZipFile(wheel).namelist())
wanted = [Path("hspace", path) for path in Path("conf").rglob("*.yaml")]
wanted += [path for path in Path("hspace/weights").rglob("*") if path.is_file()] + [Path("hspace/py.typed")]
missing = [path.as_posix() for path in wanted if path.as_posix() not in names]
if missing or not any("weights" in path.parts for path in wanted):
    sys.exit(f"the wheel lacks {', '.join(missing) or 'hspace/weights'}")
size = wheel.stat().st_size / 1e6
if size > 60:
    sys.exit(f"the wheel has {size:.1f} MB, more than 60")
print(f"{wheel.name}: {len(names)} files, {size:.1f} MB")
PYTHON
  if [ -n "${HERE:-}" ]; then
    .venv/bin/python -m pip install -q --no-deps --target "$work/installed" "$work"/hspace-*.whl
    # From another folder and ahead of the checkout, so that the wheel's own files are what runs.
    python="$PWD/.venv/bin/python"
    (cd "$work" && export PYTHONPATH="$work/installed" && "$python" -m hspace.cli --help >/dev/null && "$python" -m hspace.cli list)
    return
  fi
  python3 -m venv "$work/bare"
  "$work/bare/bin/python" -m pip install -q torch
  "$work/bare/bin/python" -m pip install -q "$work"/hspace-*.whl
  (cd "$work" && bare/bin/hspace experiment=demo && bare/bin/hspace studio export page \
    --direction outputs/demo/directions.safetensors --samples 1 && test -s page/index.html)
  (cd "$work" && bare/bin/python - <<'PYTHON'
import subprocess
import sys
import urllib.request

words = [sys.executable, "-m", "hspace.cli", "studio", "--no-browser"]
with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
    address = server.stdout.readline().split()[-1]
    page = urllib.request.urlopen(address, timeout=60).read().decode()
    server.terminate()
sys.exit(0 if "<title>" in page else "the studio's page is not served")
PYTHON
  )
}

[ $# -gt 0 ] || set -- demo test wheel notebooks docs check
for step in "$@"; do
  started=$SECONDS
  printf '== %s\n' "$step"
  case $step in
    test) test_ ;;
    demo | wheel | notebooks | docs | check) "$step" ;;
    *) echo "unknown step $step: there are demo, test, wheel, notebooks, docs, check" >&2; exit 2 ;;
  esac
  printf '== %s: %d s\n' "$step" $((SECONDS - started))
done
