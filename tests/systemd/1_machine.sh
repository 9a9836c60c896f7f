# The machine itself: systemd is PID 1, and a restarted unit gets a new main process.
set -eu

test "$(cat /proc/1/comm)" = systemd
systemctl is-active redis-server.service
before=$(systemctl show --property=MainPID --value redis-server.service)
systemctl restart redis-server.service
after=$(systemctl show --property=MainPID --value redis-server.service)
test "$before" != "$after"
redis-cli ping
