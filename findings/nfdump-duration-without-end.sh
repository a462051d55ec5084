#!/usr/bin/env bash
# nfdump prints a negative duration for a flow whose record has a start and no end.
#
# Tool: nfcapd and nfdump 1.7.1, Debian 12 package nfdump 1.7.1-2+deb12u1.
# Behaviour: RFC 7011 lets an exporter choose the elements of a template. If a template has flowStartMilliseconds and no
#   flowEndMilliseconds, nfcapd stores the end as zero, and nfdump takes that for 1970. It prints the difference as a
#   duration, whose parts do not fit into their types. Nobody warns.
# Why it matters: an exporter that sends no end of a flow, to say less about people, makes reports that look broken. Such
#   an exporter had better send neither of the two times, or both.
# Seen:
#   with start and end: duration 00:00:02.500
#   with start only:    duration -2147483648d -2147483648:-2147483648:18446742306483952.000, end 1970-01-01T00:00:00.000

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


KEY = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8)]
key = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.7") + struct.pack(">HHBQQ", 1024, 443, 6, 1234, 5)
start = SECOND * 1000
if sys.argv[2] == "start-and-end":
    send(0, template(256, KEY + [(152, 8), (153, 8)]), a_set(256, key + struct.pack(">QQ", start, start + 2500)))
else:
    send(0, template(256, KEY + [(152, 8)]), a_set(256, key + struct.pack(">Q", start)))
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

# The line of the one flow, from the second column on: the duration, the protocol and so on.
line() { "$nfdump" -q -r "$work/$1"/nfcapd.2* -o long | grep 192.0.2.1; }
duration() { line "$1" | sed -E 's/^[^ ]+ [^ ]+ +//; s/ +TCP .*//'; }
end() { "$nfdump" -q -r "$work/$1"/nfcapd.2* -o json | sed -nE 's/.*"last" *: *"([^"]*)".*/\1/p'; }

collect start-and-end 1
collect start-only 1

echo "Tool:     $(sed 's/.*: //' "$work/version") of $package"
echo "Done:     sent nfcapd one flow with flowStartMilliseconds and flowEndMilliseconds, and one with the start only"
echo "Expected: no duration, or zero, for the flow without an end"
echo "Seen:     with start and end: duration $(duration start-and-end)"
echo "Seen:     with start only:    duration $(duration start-only), end $(end start-only)"

[ "$(duration start-and-end)" = 00:00:02.500 ] || changed "the duration of a flow with both times is not 2.5 s"
[[ "$(duration start-only)" = *-2147483648* ]] || changed "the duration of a flow without an end is no longer nonsense"
[[ "$(end start-only)" = 1970-01-01T* ]] || changed "the end is no longer 1970"
echo "As recorded."
