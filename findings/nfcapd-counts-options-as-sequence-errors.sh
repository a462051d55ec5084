#!/usr/bin/env bash
# nfcapd reports sequence errors for an exporter that numbers its messages as the RFC says.
#
# Tool: nfcapd 1.7.1, Debian 12 package nfdump 1.7.1-2+deb12u1.
# Behaviour: in RFC 7011, section 3.1, the sequence number counts all data records of the observation domain. A record of an
#   options template is a data record, too; only templates do not count. nfcapd counts the flow records alone. So each
#   message after one with options looks to it like a gap.
# Why it matters: operators watch this number to find lost datagrams. An exporter that sends statistics as options, as RFC
#   7011 suggests, seems to lose records on a path that loses nothing. An exporter that leaves the options out of its count
#   breaks the RFC and looks perfect.
# Seen:
#   options counted, as RFC 7011 says: Flows: 5, Sequence Errors: 4
#   options not counted:               Flows: 5, Sequence Errors: 0
#   no options sent:                   Flows: 5, Sequence Errors: 0

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


FLOW = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8)]
start = SECOND * 1000
flow = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.7")
flow += struct.pack(">HHBQQQQ", 1024, 443, 6, 1234, 5, start, start + 2500)
# observationDomainId is the scope; exportedMessageTotalCount and exportedFlowRecordTotalCount follow.
OPTIONS = [(149, 4), (41, 8), (42, 8)]
options_template = a_set(3, struct.pack(">HHH", 257, len(OPTIONS), 1) + fields(OPTIONS) + b"\0\0")
case = sys.argv[2]
send(0, template(256, FLOW), options_template)
sequence = 0
for number in range(1, 6):
    send(sequence, a_set(256, flow))
    sequence += 1
    if case != "none":
        send(sequence, a_set(257, struct.pack(">IQQ", 1, 2 * number, number)))
    if case == "counted":
        sequence += 1
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

errors() { sed -nE 's/.*Sequence Errors: ([0-9]+).*/\1/p' "$work/$1/log"; }

for name in counted not-counted none; do collect "$name" 5; done

echo "Tool:     $(sed 's/.*: //' "$work/version") of $package"
echo "Done:     sent nfcapd 5 flow records, each followed by a record of an options template, and lost none of them"
echo "Expected: no sequence errors where the sequence number counts all data records"
echo "Seen:     options counted, as RFC 7011 says: Flows: 5, Sequence Errors: $(errors counted)"
echo "Seen:     options not counted:               Flows: 5, Sequence Errors: $(errors not-counted)"
echo "Seen:     no options sent:                   Flows: 5, Sequence Errors: $(errors none)"

[ "$(errors none)" = 0 ] || changed "there are sequence errors without options, too"
[ "$(errors not-counted)" = 0 ] || changed "nfcapd no longer accepts a count without options"
[ "$(errors counted)" = 4 ] || changed "nfcapd no longer counts 4 sequence errors"
echo "As recorded."
