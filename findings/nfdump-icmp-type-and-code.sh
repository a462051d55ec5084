#!/usr/bin/env bash
# nfdump shows an ICMP echo request as an echo reply if type and code come as two elements.
#
# Tool: nfcapd and nfdump 1.7.1, Debian 12 package nfdump 1.7.1-2+deb12u1.
# Behaviour: IANA has two ways to send type and code of ICMP: icmpTypeCodeIPv4 (32), two octets in one element, and
#   icmpTypeIPv4 (176) with icmpCodeIPv4 (177). nfcapd drops the latter two. Since it knows no "absent" here, nfdump prints
#   type 0 and code 0, which is a valid message: the echo reply.
# Why it matters: the reader sees a false fact and no gap. Requests, errors and replies all look like replies. An exporter
#   for nfdump had better send the one element of two octets.
# Seen:
#   element 32:           icmp_type 8, icmp_code 0
#   elements 176 and 177: icmp_type 0, icmp_code 0

set -euo pipefail
export LC_ALL=C TZ=UTC

work=$(mktemp -d)
collector=
clean_up() {
    if [ -n "$collector" ]; then kill -- "$collector" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap clean_up EXIT
# Exit status 1: the behaviour is no longer as recorded. 2: this machine cannot show it.
cannot() { echo "cannot be shown: $*"; exit 2; }
changed() { echo "CHANGED: $*"; exit 1; }
# A UDP port of this host that nobody listens on.
free_port() {
    python3 - <<'PYTHON'
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
    it.bind(("127.0.0.1", 0))
    print(it.getsockname()[1])
PYTHON
}
# Waits at most 30 s until a command succeeds.
wait_for() {
    for _ in $(seq 150); do
        if "$@"; then return; fi
        sleep 0.2
    done
    cannot "no success within 30 s: $*"
}

package=nfdump=1.7.1-2+deb12u1
if ! (cd "$work" && apt-get download -q "$package" && dpkg -x ./*.deb root) >"$work/download" 2>&1; then
    cat "$work/download"
    cannot "apt-get has no $package; Debian 12 does"
fi
nfcapd=$work/root/usr/bin/nfcapd
nfdump=$work/root/usr/bin/nfdump
if ! "$nfdump" -V >"$work/version" 2>&1; then
    cat "$work/version"
    cannot "nfdump does not start; it may lack a library"
fi

cat >"$work/send.py" <<'PYTHON'
import socket, struct, sys, time

port = int(sys.argv[1])
SECOND = 1_767_225_600  # 2026-01-01 00:00:00 UTC
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect(("127.0.0.1", port))


def fields(pairs):
    return b"".join(struct.pack(">HH", number, length) for number, length in pairs)


def a_set(number, content):
    return struct.pack(">HH", number, 4 + len(content)) + content


def template(number, pairs):
    return a_set(2, struct.pack(">HH", number, len(pairs)) + fields(pairs))


def send(sequence, *sets, domain=1):
    content = b"".join(sets)
    sender.send(struct.pack(">HHIII", 10, 16 + len(content), SECOND, sequence, domain) + content)


ECHO_REQUEST = 8
KEY = [(8, 4), (12, 4), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8)]
start = SECOND * 1000
key = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.7")
key += struct.pack(">BQQQQ", 1, 420, 5, start, start + 2500)
together = [(32, 2)]
apart = [(176, 1), (177, 1)]
# On the wire both are the same two octets.
record = key + struct.pack(">BB", ECHO_REQUEST, 0)
send(0, template(256, KEY + (together if sys.argv[2] == "together" else apart)), a_set(256, record))
PYTHON

# Starts nfcapd on a free port, sends the messages of case $1, and stops it. Leaves $work/$1/log and $work/$1/nfcapd.*
collect() {
    local port folder=$work/$1
    mkdir "$folder"
    port=$(free_port)
    "$nfcapd" -w "$folder" -b 127.0.0.1 -p "$port" -t 3600 >"$folder/log" 2>&1 &
    collector=$!
    wait_for grep -qs "Startup nfcapd" "$folder/log"
    python3 "$work/send.py" "$port" "$1"
    sleep 2
    kill "$collector"
    wait "$collector" || true
    collector=
    grep -q "Flows: $2," "$folder/log" || cannot "nfcapd did not get $2 flows: $(grep Ident: "$folder/log")"
}

shown() { "$nfdump" -q -r "$work/$1"/nfcapd.2* -o json | sed -nE "s/.*\"($2)\" *: *([0-9]+).*/\1 \2/p"; }
both() { echo "$(shown "$1" icmp_type), $(shown "$1" icmp_code)"; }

collect together 1
collect apart 1

echo "Tool:     $(sed 's/.*: //' "$work/version") of $package"
echo "Done:     sent nfcapd an ICMP echo request (type 8, code 0), with type and code in one element and in two"
echo "Expected: type 8 both times, or no type at all for elements that the collector does not know"
echo "Seen:     element 32:           $(both together)"
echo "Seen:     elements 176 and 177: $(both apart)"

[ "$(both together)" = "icmp_type 8, icmp_code 0" ] || changed "element 32 is no longer shown as type 8"
[ "$(both apart)" = "icmp_type 0, icmp_code 0" ] || changed "elements 176 and 177 are no longer shown as type 0"
echo "As recorded."
