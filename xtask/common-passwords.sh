#!/bin/sh
# Makes crates/pearlgate/src/passwords/common.filter again: the union of the most common passwords that two registries
# offer under compatible licences. Run as `cargo xtask common-passwords`; needs npm, pip, python3, tar and unzip.
#   npm   @zxcvbn-ts/language-common  MIT    src/passwords.json
#   PyPI  Django                      BSD-3  django/contrib/auth/common-passwords.txt.gz
set -eu
ZXCVBN=4.1.3
DJANGO=5.2.19
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "@zxcvbn-ts/language-common@$ZXCVBN" >/dev/null
tar xzf zxcvbn-ts-language-common-*.tgz
python3 -m pip download --quiet --no-deps --dest . "django==$DJANGO"
unzip -q -o django-*.whl django/contrib/auth/common-passwords.txt.gz 2>/dev/null ||
    unzip -q -o Django-*.whl django/contrib/auth/common-passwords.txt.gz
python3 - <<'PY'
import gzip, json
zxcvbn = set(json.load(open("package/src/passwords.json")))
django = set(gzip.open("django/contrib/auth/common-passwords.txt.gz", "rt").read().split("\n")) - {""}
union = sorted(zxcvbn | django)
open("common.txt", "w").write("\n".join(union) + "\n")
print(f"{len(zxcvbn)} and {len(django)} passwords, {len(union)} in their union")
PY
cd "$root"
cargo run --quiet --locked -p pearlgate -- breach build --words "$work/common.txt" --out "$work/common.filter"
mv "$work/common.filter" crates/pearlgate/src/passwords/common.filter
