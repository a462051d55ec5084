#!/usr/bin/env bash
# fastparquet cuts zero octets from the end of values with a fixed length, such as IP addresses.
#
# Library: fastparquet 2026.9.0 with pandas 3.1.1 and NumPy 2.4.6. The file comes from pyarrow 26.0.1.
# Behaviour: a column of the Parquet type FIXED_LEN_BYTE_ARRAY(4) or (16) holds values of exactly that length. fastparquet
#   hands out values of different lengths: the zero octets at the end are gone. The same values in a column of
#   the type BYTE_ARRAY come back whole. pyarrow reads both well. NumPy's type for byte strings of one length ends a string
#   in the same way.
# Why it matters: this is the natural type for binary addresses. Network addresses and truncated addresses end in zeros, so
#   they suffer most: 198.51.100.0 has three octets, 2001:db8:: four, and :: none. A join of two files still works, and
#   a join with addresses from elsewhere silently finds nothing.
# Seen:
#   198.51.100.0   fixed: c63364                            variable: c6336400
#   2001:db8::     fixed: 20010db8                          variable: 20010db8000000000000000000000000

set -euo pipefail
export LC_ALL=C

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cannot() { echo "cannot be shown: $*"; exit 2; }

python3 -m venv "$work/venv" || cannot "there is no python3 with venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    cramjam==2.14.0 fastparquet==2026.9.0 fsspec==2026.9.0 numpy==2.4.6 packaging==26.4 pandas==3.1.1 pyarrow==26.0.1 \
    || cannot "pip cannot install the packages"

cat >"$work/show.py" <<'PYTHON'
import ipaddress, sys

import fastparquet, numpy, pandas, pyarrow, pyarrow.parquet

path = sys.argv[1]
shown = {
    "IPv4": ["198.51.100.0", "192.0.2.7", "0.0.0.0"],
    "IPv6": ["2001:db8::", "2001:db8::1", "::"],
}
packed = {name: [ipaddress.ip_address(text).packed for text in texts] for name, texts in shown.items()}
columns = {}
for name, values in packed.items():
    columns[f"{name} fixed"] = pyarrow.array(values, pyarrow.binary(len(values[0])))
    columns[f"{name} variable"] = pyarrow.array(values, pyarrow.binary())
table = pyarrow.table(columns)
pyarrow.parquet.write_table(table, path)
frame = fastparquet.ParquetFile(path).to_pandas()

print(f"Tool:     fastparquet {fastparquet.__version__}, pandas {pandas.__version__}, NumPy {numpy.__version__};"
      f" written by pyarrow {pyarrow.__version__}")
print("Done:     wrote addresses as byte strings of fixed and of variable length, and read the file with fastparquet")
print("Expected: 4 octets for each IPv4 address and 16 for each IPv6 address")
changes = []
if not pyarrow.parquet.read_table(path).equals(table):
    changes.append("pyarrow does not read its own file back")
for name, values in packed.items():
    for row, value in enumerate(values):
        fixed, variable = (bytes(frame[f"{name} {kind}"].iloc[row]) for kind in ("fixed", "variable"))
        print(f"Seen:     {shown[name][row]:14} fixed: {fixed.hex() or 'empty':33} variable: {variable.hex()}")
        if variable != value:
            changes.append(f"a column of variable length does not hold {shown[name][row]}")
        if fixed != value.rstrip(b"\0"):
            changes.append(f"fastparquet no longer cuts the zeros of {shown[name][row]}")
for change in changes:
    print(f"CHANGED: {change}")
sys.exit(1 if changes else 0)
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work/addresses.parquet"
echo "As recorded."
