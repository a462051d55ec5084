#!/usr/bin/env bash
# pmacct's nfacctd drops flow records that have neither an address nor an IP version, and says nothing.
#
# Tool: nfacctd 1.7.7, Debian 12 package pmacct 1.7.7-1+b1.
# Behaviour: nfacctd finds out from the addresses, or from ipVersion (60), whether a flow is IPv4 or IPv6. A record with
#   ports, counters and times alone is neither, and nfacctd drops it, even if it is asked for ports only. At its normal log
#   level it does not say so.
# Why it matters: an exporter that leaves addresses out for the sake of privacy sends valid IPFIX, and the totals of the
#   collector are too small. One octet, ipVersion, prevents it.
# Seen:
#   with addresses, without ipVersion (port 22): counted
#   without addresses, without ipVersion (port 443): lost
#   without addresses, with ipVersion (port 80): counted

set -euo pipefail
export LC_ALL=C TZ=UTC

work=$(mktemp -d)
collector=
clean_up() {
    if [ -n "$collector" ]; then
        # SIGTERM leaves nfacctd running.
        kill -KILL -- -"$collector" 2>/dev/null || true
        wait "$collector" 2>/dev/null || true
    fi
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

package=pmacct=1.7.7-1+b1
if ! (cd "$work" && apt-get download -q "$package" && dpkg -x ./*.deb root) >"$work/download" 2>&1; then
    cat "$work/download"
    cannot "apt-get has no $package; Debian 12 does"
fi
nfacctd=$work/root/usr/sbin/nfacctd
if ! "$nfacctd" -V >"$work/version" 2>&1; then
    cat "$work/version"
    cannot "nfacctd does not start; install the libraries that pmacct depends on"
fi

cat >"$work/send.py" <<'PYTHON'
import socket, struct, sys, time

port = int(sys.argv[1])
SECOND = int(time.time())
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


COUNTS = [(4, 1), (11, 2), (1, 8), (2, 8), (152, 8), (153, 8)]
start = SECOND * 1000


def counts(port):
    return struct.pack(">BHQQQQ", 6, port, 1234, 5, start, start + 500)


addresses = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.7")
send(0, template(256, [(8, 4), (12, 4)] + COUNTS), a_set(256, addresses + counts(22)))
send(1, template(257, COUNTS), a_set(257, counts(443)))
# Last, so that its arrival shows that the others were read.
send(2, template(258, [(60, 1)] + COUNTS), a_set(258, b"\x04" + counts(80)))
PYTHON

port=$(free_port)
cat >"$work/nfacctd.conf" <<CONF
daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: $port
plugins: print[p]
aggregate[p]: proto, dst_port
print_output[p]: json
print_output_file[p]: $work/records
print_output_file_append[p]: true
print_refresh_time[p]: 1
logfile: $work/log
CONF
touch "$work/records" "$work/log"
# Its plugin is a process of its own, so both get a process group.
setsid "$nfacctd" -f "$work/nfacctd.conf" >/dev/null 2>&1 &
collector=$!
wait_for grep -q "Purging cache - END" "$work/log"
python3 "$work/send.py" "$port"
wait_for grep -q '"port_dst": 80,' "$work/records"
# One more interval of output, in case something is late.
sleep 2

fate() { if grep -q "\"port_dst\": $1," "$work/records"; then echo counted; else echo lost; fi; }
warnings() { grep -cE ' (WARN|ERROR) ' "$work/log" || true; }

echo "Tool:     $(head -1 "$work/version") of $package"
echo "Done:     sent nfacctd, which aggregates by protocol and port, 3 valid records of the same counters and times"
echo "Expected: all 3 are counted, or the log names what was dropped"
echo "Seen:     with addresses, without ipVersion (port 22): $(fate 22)"
echo "Seen:     without addresses, without ipVersion (port 443): $(fate 443)"
echo "Seen:     without addresses, with ipVersion (port 80): $(fate 80)"
echo "Seen:     warnings and errors in the log: $(warnings)"

[ "$(fate 22)" = counted ] || changed "the record with addresses is not counted"
[ "$(fate 443)" = lost ] || changed "the record with neither addresses nor a version is counted now"
[ "$(warnings)" = 0 ] || changed "the log has a warning now"
echo "As recorded."
