#!/bin/sh
# Run in a project's folder: links the packages beside this file into node_modules, so that npm's scripts work without a
# network. `npm ci` replaces the links where there is one.
set -eu
here=$(dirname "$(readlink -f "$0")")
[ -f package.json ] || { echo "There is no package.json here: run this in the project's folder." >&2; exit 1; }
mkdir -p node_modules
ln -sfn "$here"/node_modules/* "$here"/node_modules/.bin node_modules/
echo "node_modules is ready."
