# The words of the checks: how they wait, ask and fail. Sourced by each of them.
set -u
CHECKS=/usr/local/lib/connleak-checks

fail() {
    echo "FAILED: $*"
    journalctl -u connleak --no-pager -o short-monotonic | tail -60
    connleak status
    exit 1
}
property() { systemctl show "--property=$2" --value "$1"; }
# What the daemon said since SINCE, or since the boot.
journal() { journalctl -u connleak --no-pager -o cat "--since=${SINCE:-@0}"; }
# Waits for a line of the journal.
said() {
    for _ in $(seq 480); do
        journal | grep -qF -- "$1" && return 0
        sleep 0.25
    done
    fail "not in the journal: $1"
}
# The monotonic time in milliseconds of the first line with these fields.
first_ms() {
    local us
    us=$(journalctl -u connleak --no-pager -o json "$@" | head -1 |
        sed 's/.*"__MONOTONIC_TIMESTAMP" *: *"\([0-9]*\)".*/\1/')
    echo $(( us / 1000 ))
}
evidence_files() { ls /var/lib/connleak/evidence/*.json | wc -l; }
