# The package installs, starts and enables the daemon, and lets only root and one group ask it.
. /usr/local/lib/connleak-checks/words.bash

dpkg --install "$CHECKS/connleak.deb" || fail "the package does not install"
# This machine's dpkg leaves documentation out.
dpkg --verify connleak | grep -v /usr/share/doc && fail "what was installed is not what was packed"
systemctl is-enabled connleak.service || fail "not enabled"
# Type=notify: the installation returned when the hooks were attached.
systemctl is-active connleak.service || fail "not active"
test "$(property connleak.service StatusText)" != "" || fail "no status text"
connleak daemon --check-config || fail "the configuration that is installed is bad"
test "$(connleak status -o json | grep -c '"config": "/etc/connleak/connleak.toml"')" = 1 ||
    fail "the installed configuration is not the one in force"

socket=/run/connleak/connleak.sock
test "$(stat -c '%a %U %G' $socket)" = "660 root connleak" || fail "$(stat $socket)"
as() { setpriv --reuid=nobody "--regid=$1" --clear-groups connleak status; }
as connleak || fail "the group may not ask"
as nogroup && fail "everybody may ask"

# A configuration that is wrong is not tried again and again.
config=/etc/connleak/connleak.toml
cp $config /run/good.toml
echo "[watch" >> $config
systemctl restart connleak.service && fail "the daemon starts with a bad configuration"
# Longer than RestartSec.
sleep 4
test "$(property connleak.service ActiveState)" = failed || fail "it is tried again"
test "$(property connleak.service ExecMainStatus)" = 78 || fail "not ended as a bad configuration is"
cp /run/good.toml $config
systemctl restart connleak.service || fail "the daemon does not start with a good configuration"
exit 0
