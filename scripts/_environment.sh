# Sourced by the other scripts. Creates .venv in the checkout if there is none and installs what is missing.
# Afterwards the working directory is the checkout, and the programs of .venv come first on PATH.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local name
  for name in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "no Python of at least 3.11 found; install one, or set PYTHON to its path" >&2
  return 1
}

if [ ! -x .venv/bin/python ]; then
  python=$(find_python)
  echo "making .venv with $("$python" --version)"
  "$python" -m venv .venv
fi

wanted=$(cat pyproject.toml constraints.txt | .venv/bin/python -c \
  'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$(cat .venv/.installed 2>/dev/null)" != "$wanted" ]; then
  echo "installing into .venv (several GB the first time, because of torch)"
  .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,demo]'
  echo "$wanted" > .venv/.installed
fi
export PATH="$PWD/.venv/bin:$PATH"
