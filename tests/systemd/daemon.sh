# The leaking unit is restarted, the others never; the cooldown holds through kill -9 of the
# daemon; the third restart that does not help ends in MANUAL; the journal and evidence have it.
set -u

fail() {
    echo "FAILED: $*"
    journalctl -u connleak --no-pager -o short-monotonic | tail -60
    connleak status
    exit 1
}
property() { systemctl show "--property=$2" --value "$1"; }
journal() { journalctl -u connleak --no-pager -o cat; }
# Waits for a line of the journal.
said() {
    for _ in $(seq 240); do
        journal | grep -qF -- "$1" && return 0
        sleep 0.5
    done
    fail "not in the journal: $1"
}
# The monotonic time in microseconds of the first line with these fields.
first() {
    journalctl -u connleak --no-pager -o json "$@" | head -1 |
        sed 's/.*"__MONOTONIC_TIMESTAMP" *: *"\([0-9]*\)".*/\1/'
}

mkdir -p /etc/connleak
cp /usr/local/lib/connleak-checks/daemon.toml /etc/connleak/connleak.toml
rm -f /run/leak
systemctl start leaky.service steady.service || fail "the clients do not start"
systemctl start connleak.service || fail "the daemon does not start"
steady=$(property steady.service InvocationID)
redis=$(property redis-server.service InvocationID)
first_leaky=$(property leaky.service InvocationID)
test "$(property connleak.service StatusText)" != "" || fail "no status text"

connleak check || echo "check: $?"
touch /run/leak
said "-> CRITICAL"
said "action 1 on leaky.service: done"
second_leaky=$(property leaky.service InvocationID)
test "$first_leaky" != "$second_leaky" || fail "leaky.service was not restarted"
crossed=$(first CONNLEAK_EVENT=level CONNLEAK_LEVEL=CRITICAL)
restarted=$(first CONNLEAK_EVENT=outcome)
echo "from CRITICAL to restarted: $(( (restarted - crossed) / 1000 )) ms"
test $(( restarted - crossed )) -lt 15000000 || fail "the restart took longer than 15 s"

# It leaks again within the cooldown: the daemon waits, and a kill -9 does not make it forget.
said "the cooldown is running"
kill -9 "$(property connleak.service MainPID)"
said "action 2 on leaky.service: done"
second=$(journalctl -u connleak --no-pager -o json CONNLEAK_EVENT=action CONNLEAK_ACTION_ID=2 |
    head -1 | sed 's/.*"__MONOTONIC_TIMESTAMP" *: *"\([0-9]*\)".*/\1/')
began=$(first CONNLEAK_EVENT=action CONNLEAK_ACTION_ID=1)
echo "between two restarts: $(( (second - began) / 1000 )) ms"
test $(( second - began )) -ge 24000000 || fail "the cooldown was cut short"

said "action 3 on leaky.service: done"
said "MANUAL: 3 restarts in a row did not help"
connleak status | grep -q "^MANUAL" || fail "status does not say MANUAL"
connleak check && fail "check says all is well"
test "$(property steady.service InvocationID)" = "$steady" || fail "steady.service was restarted"
test "$(property redis-server.service InvocationID)" = "$redis" || fail "redis was restarted"
test "$(ls /var/lib/connleak/evidence/*.json | wc -l)" = 3 || fail "not three evidence files"
grep -l '"verdict": "grows-again"' /var/lib/connleak/evidence/*.json | wc -l

# A person looks, mends the leak and acknowledges.
rm /run/leak
systemctl restart leaky.service
connleak ack || fail "ack"
said "MANUAL is over"
systemctl reload connleak.service || fail "reload"
said "the configuration was reloaded"
systemctl stop connleak.service || fail "stop"
said "stopped"
