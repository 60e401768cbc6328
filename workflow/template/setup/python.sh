#!/bin/sh
# Run in a project's folder: makes .venv, which uses the packages beside this file, so that it works without a network.
set -eu
here=$(dirname "$(readlink -f "$0")")
version=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
if [ ! -d "$here/$version" ]; then
    echo "The packages of this template are for another Python than $version: the operator runs scripts/templates." >&2
    exit 1
fi
python3 -m venv --without-pip .venv
printf '%s\n' "$here/$version" "$PWD/src" >".venv/lib/$version/site-packages/template.pth"
echo ".venv is ready."
