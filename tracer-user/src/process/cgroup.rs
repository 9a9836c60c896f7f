//! A placement: the systemd unit or the container that a process's cgroup says it runs in.

/// What a cgroup path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// A systemd service, scope or slice; the innermost service wins.
    pub unit: Option<String>,
    /// Container ID, 64 hexadecimal digits.
    pub container: Option<String>,
}

/// Reads the text of /proc/PID/cgroup, of cgroup v1 and v2.
pub fn placement(text: &str) -> Placement {
    let mut found = Placement::default();
    for line in text.lines() {
        // hierarchy:controllers:path; the path itself may hold colons.
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        for part in path.split('/') {
            if is_unit(part) {
                found.unit = Some(unescape(part));
            }
            if let Some(id) = container_id(part) {
                found.container = Some(id.to_owned());
            }
        }
        if found.unit.is_some() || found.container.is_some() {
            break;
        }
    }
    // A container's own scope names the runtime, not a unit that one would restart.
    if found.container.is_some()
        && found
            .unit
            .as_deref()
            .is_some_and(|unit| container_id(unit).is_some())
    {
        found.unit = None;
    }
    found
}

fn is_unit(part: &str) -> bool {
    part.ends_with(".service") || part.ends_with(".scope")
}

/// systemd writes characters that a path cannot hold as `\xNN`.
fn unescape(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = rest
            .strip_prefix(b"\\x")
            .and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The ID in `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`, or
/// a bare `ID` (cgroupfs driver).
fn container_id(part: &str) -> Option<&str> {
    let stem = part.strip_suffix(".scope").unwrap_or(part);
    let id = stem.rsplit(['-', ':']).next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f0c6b0d2a4e8f1c3b7d9e0a1f2c4b6d8e0f1a3c5b7d9f0e2a4c6b8d0f1e3a5c";

    #[test]
    fn innermost_service_is_the_unit() {
        let found = placement("0::/system.slice/trading-worker@3.service\n");
        assert_eq!(found.unit.as_deref(), Some("trading-worker@3.service"));
        assert_eq!(found.container, None);
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/feed.service";
        assert_eq!(placement(user).unit.as_deref(), Some("feed.service"));
    }

    #[test]
    fn escaped_unit_names_are_read() {
        let found = placement(r"0::/system.slice/system-a\x2db.slice/a\x2db@1.service");
        assert_eq!(found.unit.as_deref(), Some("a-b@1.service"));
    }

    #[test]
    fn containers_of_every_runtime_are_recognised() {
        for path in [
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("0::/kubepods.slice/kubepods-besteffort.slice/crio-{ID}.scope"),
            format!("0::/machine.slice/libpod-{ID}.scope/container"),
            format!("4:memory:/docker/{ID}"),
            format!("4:memory:/kubepods/burstable/pod1/{ID}"),
            format!("0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
        ] {
            assert_eq!(placement(&path).container.as_deref(), Some(ID), "{path}");
        }
        let scope = format!("0::/system.slice/docker-{ID}.scope");
        assert_eq!(placement(&scope).unit, None);
    }

    #[test]
    fn version_1_paths_of_the_root_name_nothing() {
        assert_eq!(placement("9:pids:/\n0::/\n"), Placement::default());
    }
}
