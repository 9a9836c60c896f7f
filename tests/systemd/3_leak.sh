# The leaking unit is restarted, the others never; the cooldown holds through kill -9 of the
# daemon; the third restart that does not help ends in MANUAL; the journal and evidence have it.
. /usr/local/lib/connleak-checks/words.bash

cp "$CHECKS/daemon.toml" /etc/connleak/connleak.toml
rm -f /var/lib/leak
systemctl restart connleak.service || fail "the daemon does not start"
systemctl start leaky.service steady.service || fail "the clients do not start"
steady=$(property steady.service InvocationID)
redis=$(property redis-server.service InvocationID)
first_leaky=$(property leaky.service InvocationID)

# Errors a minute are known from the second INFO on.
for _ in $(seq 60); do
    all=$(connleak check) && break
    sleep 0.5
done
echo "$all"
connleak check > /dev/null || fail "check does not say that all is well"

touch /var/lib/leak
said "-> CRITICAL"
said "action 1 on leaky.service: done"
second_leaky=$(property leaky.service InvocationID)
test "$first_leaky" != "$second_leaky" || fail "leaky.service was not restarted"
# Held for the default 10 s of it.
took=$(( $(first_ms CONNLEAK_EVENT=outcome) - $(cat /run/crossed) ))
echo "from passing 100 to restarted: $took ms"
test $took -lt 15000 || fail "the restart took longer than 15 s"

# From here on the emulated minutes are spared.
sed -i '/^port/a hold_up = "1s"' /etc/connleak/connleak.toml
systemctl reload connleak.service || fail "reload"
said "the configuration was reloaded"

# It leaks again within the cooldown: the daemon waits, and a kill -9 does not make it forget.
said "the cooldown is running"
kill -9 "$(property connleak.service MainPID)"
said "action 2 on leaky.service: done"
began=$(first_ms CONNLEAK_EVENT=action CONNLEAK_ACTION_ID=1)
second=$(first_ms CONNLEAK_EVENT=action CONNLEAK_ACTION_ID=2)
echo "between two restarts: $(( second - began )) ms"
test $(( second - began )) -ge 24900 || fail "the cooldown was cut short"

said "action 3 on leaky.service: done"
said "MANUAL: 3 restarts in a row did not help"
connleak status | grep -q "^MANUAL" || fail "status does not say MANUAL"
connleak check
test $? = 2 || fail "check does not say CRITICAL"
test "$(property steady.service InvocationID)" = "$steady" || fail "steady.service was restarted"
test "$(property redis-server.service InvocationID)" = "$redis" || fail "redis was restarted"
test "$(evidence_files)" = 3 || fail "not three evidence files"
for file in /var/lib/connleak/evidence/*.json; do
    grep -q '"outcome": "done"' "$file" && grep -q '"verdict": "' "$file" ||
        fail "what became of it is not in $file"
done

# A person looks, mends the leak and acknowledges.
rm /var/lib/leak
systemctl restart leaky.service
connleak ack || fail "ack"
said "MANUAL is over"
systemctl stop connleak.service || fail "stop"
said "stopped"
