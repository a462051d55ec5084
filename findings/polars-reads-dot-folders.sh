#!/usr/bin/env bash
# Polars reads files in hidden folders when it scans a folder, and hidden files even with a pattern.
#
# Library: Polars 2.1.0; pyarrow 26.0.1 to compare.
# Behaviour: scan_parquet("FOLDER") reads FOLDER/.part/b.parquet and FOLDER/.c.parquet. scan_parquet("FOLDER/*") leaves out
#   the hidden folder and reads the hidden file, while the "*" of a shell matches neither. hidden_file_prefix="." keeps the
#   hidden file out, and goes into the hidden folder as before. pyarrow reads a.parquet alone in the same folder.
# Why it matters: exporters of files write to a hidden name beside the result and rename at the end, or keep their state
#   in a hidden folder. A reader with Polars gets records that are unfinished or counted twice, or an error about a file
#   that nobody meant as data. The safe form is "FOLDER/*" together with hidden_file_prefix=".".
# Seen, as the files that were read:
#   pyarrow.dataset("FOLDER"):                         a
#   scan_parquet("FOLDER"):                            a b c
#   scan_parquet("FOLDER/*"):                          a c
#   scan_parquet("FOLDER", hidden_file_prefix="."):    a b
#   scan_parquet("FOLDER/*", hidden_file_prefix="."):  a

set -euo pipefail
export LC_ALL=C

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cannot() { echo "cannot be shown: $*"; exit 2; }

python3 -m venv "$work/venv" || cannot "there is no python3 with venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    polars==2.1.0 polars-runtime-32==2.1.0 pyarrow==26.0.1 || cannot "pip cannot install the packages"

cat >"$work/show.py" <<'PYTHON'
import pathlib, sys

import polars, pyarrow, pyarrow.dataset

folder = pathlib.Path(sys.argv[1])
for name, path in {"a": "a.parquet", "b": ".part/b.parquet", "c": ".c.parquet"}.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    polars.DataFrame({"file": [name]}).write_parquet(folder / path)


def scan(suffix="", **options):
    return polars.scan_parquet(f"{folder}{suffix}", **options).collect()["file"].to_list()


cases = {
    'pyarrow.dataset("FOLDER")': (pyarrow.dataset.dataset(folder).to_table()["file"].to_pylist(), "a"),
    'scan_parquet("FOLDER")': (scan(), "a b c"),
    'scan_parquet("FOLDER/*")': (scan("/*"), "a c"),
    'scan_parquet("FOLDER", hidden_file_prefix=".")': (scan(hidden_file_prefix="."), "a b"),
    'scan_parquet("FOLDER/*", hidden_file_prefix=".")': (scan("/*", hidden_file_prefix="."), "a"),
}
print(f"Tool:     Polars {polars.__version__}; pyarrow {pyarrow.__version__} to compare")
print("Done:     wrote FOLDER/a.parquet, FOLDER/.part/b.parquet and FOLDER/.c.parquet, and read the folder")
print("Expected: a alone, as with pyarrow and as a shell expands *")
has_changed = False
for call, (read, recorded) in cases.items():
    read = " ".join(sorted(read))
    print(f"Seen:     {call + ':':50} {read}")
    if read != recorded:
        print(f"CHANGED: recorded was {recorded}")
        has_changed = True
sys.exit(has_changed)
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work/folder"
echo "As recorded."
