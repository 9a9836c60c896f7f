# A restart is under way when the machine loses its power: the second boot goes on from here.
. /usr/local/lib/connleak-checks/words.bash

SINCE=$(date '+%F %T')
rm -rf /var/lib/connleak/*
sed -i 's/^cooldown.*/cooldown = "1h"/' /etc/connleak/connleak.toml
mkdir -p /etc/systemd/system/leaky.service.d
printf '[Service]\nExecStopPost=/bin/sleep 1000\n' > /etc/systemd/system/leaky.service.d/slow.conf
systemctl daemon-reload
systemctl add-wants multi-user.target leaky.service steady.service
systemctl start connleak.service || fail "the daemon does not start"
touch /var/lib/leak
said "restart of leaky.service is next"
date +%s > "$CHECKS/acted"
connleak status -o json | grep -q '"acting": "leaky.service"' || fail "the restart is over already"
