# The purged package leaves nothing behind.
. /usr/local/lib/connleak-checks/words.bash

dpkg --purge connleak || fail "the package does not go"
systemctl is-active connleak.service && fail "still active"
for place in /usr/bin/connleak /etc/connleak /var/lib/connleak /run/connleak; do
    test ! -e $place || fail "$place is still there: $(ls -la $place)"
done
exit 0
