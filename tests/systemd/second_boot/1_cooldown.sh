# After the power cut the cooldown is as long as it was, and the action is known to be cut short.
. /usr/local/lib/connleak-checks/words.bash

said " watches :6379"
said "action 1, restart of leaky.service: the machine was rebooted meanwhile"
grep -q '"verdict": "rebooted"' /var/lib/connleak/evidence/*.json || fail "not in the evidence"
leaky=$(property leaky.service InvocationID)
said "the cooldown is running"
left=$(connleak status -o json | sed -n 's/.*"cooldown_left_s": \([0-9]*\).*/\1/p')
passed=$(( $(date +%s) - $(cat "$CHECKS/acted") ))
echo "$passed s after the restart $left s of 3600 are left"
# Whole seconds were cut off twice.
test $(( passed + left )) -ge 3598 || fail "the cooldown was cut short"
test "$left" -le 3600 || fail "the cooldown has grown"
test "$(property leaky.service InvocationID)" = "$leaky" || fail "leaky.service was restarted"
test "$(evidence_files)" = 1 || fail "another action was taken"

# The cooldown over, the next restart follows by itself; systemd refuses it, and that is said.
printf '[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h\n' \
    > /etc/systemd/system/leaky.service.d/slow.conf
systemctl daemon-reload
systemctl restart leaky.service || fail "leaky.service does not restart"
sed -i 's/^cooldown.*/cooldown = "5s"/' /etc/connleak/connleak.toml
systemctl reload connleak.service || fail "reload"
said "action 2 on leaky.service: systemd's job for leaky.service ended with failed"
said "start-limit-hit"
said "action 2, restart of leaky.service: the unit did not come back"
