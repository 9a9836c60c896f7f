//! A placement: the systemd unit, the container or the pod that a process's cgroup names.

/// What a cgroup path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// A systemd service, scope or slice; the innermost service wins.
    pub unit: Option<String>,
    /// Container ID, 64 hexadecimal digits.
    pub container: Option<String>,
    /// UID of the Kubernetes pod, as its API writes it.
    pub pod_uid: Option<String>,
}

/// A container in a cgroup of its unit's own (podman's `--cgroups=split`, which Quadlet uses): the
/// unit is what one would restart.
const OF_ITS_UNIT: &str = "libpod-payload-";
/// Not the container, but the runtime's monitor of it.
const MONITOR: &str = "conmon-";
/// After the path of a cgroup that went before its last zombie did (4.2, proc_cgroup_show).
const REMOVED: &str = " (deleted)";

/// Reads the text of /proc/PID/cgroup, of cgroup v1 and v2.
pub fn placement(text: &str) -> Placement {
    let mut found = Placement::default();
    for line in text.lines() {
        // hierarchy:controllers:path; the path itself may hold colons.
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        let path = path.strip_suffix(REMOVED).unwrap_or(path);
        for part in path.split('/') {
            if let Some(id) = container_id(part) {
                found.container = Some(id.to_owned());
                // The runtime's scope, and the runtime's own service around it, are no units that
                // one would restart for it.
                if !part.starts_with(OF_ITS_UNIT) {
                    found.unit = None;
                }
            } else if is_unit(part) && found.container.is_none() {
                found.unit = Some(unescape(part));
            }
            if let Some(uid) = pod_uid(part) {
                found.pod_uid = Some(uid);
            }
        }
        if found.unit.is_some() || found.container.is_some() {
            break;
        }
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
    if stem.contains(MONITOR) {
        return None;
    }
    let id = stem.rsplit(['-', ':']).next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// The UID in `kubepods-burstable-podUID.slice` (systemd driver, dashes as underscores) or
/// `podUID` (cgroupfs driver). A static pod's is a hash without dashes.
fn pod_uid(part: &str) -> Option<String> {
    let slice = part.split(':').next()?;
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let (before, uid) = stem.rsplit_once("pod")?;
    if !(before.is_empty() || before.ends_with('-')) {
        return None;
    }
    let uid = uid.replace('_', "-");
    let groups: Vec<&str> = uid.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_uid = lengths == [8, 4, 4, 4, 12] || lengths == [32];
    (is_uid && groups.iter().all(hex)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_zombie_keeps_the_name_of_a_cgroup_that_is_gone() {
        let found = placement("0::/system.slice/feed.service (deleted)\n");
        assert_eq!(found.unit.as_deref(), Some("feed.service"));
    }

    /// A line of the recorded ones.
    struct Example {
        what: &'static str,
        path: &'static str,
        expected: Placement,
    }

    fn examples() -> Vec<Example> {
        let mut examples = Vec::new();
        let mut source = None;
        for line in include_str!("cgroup_examples.txt").lines() {
            if line.is_empty() {
                source = None;
                continue;
            }
            if let Some(comment) = line.strip_prefix('#') {
                source = comment.strip_prefix(" from ").or(source);
                continue;
            }
            assert!(source.is_some(), "who recorded {line}?");
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [what, path, container, pod, unit] = fields[..] else {
                panic!("five fields: {line}");
            };
            let field = |text: &str| (text != "-").then(|| text.to_owned());
            examples.push(Example {
                what,
                path,
                expected: Placement {
                    unit: field(unit),
                    container: field(container),
                    pod_uid: field(pod),
                },
            });
        }
        examples
    }

    #[test]
    fn containers_and_pods_of_every_runtime_are_recognised() {
        for Example {
            what,
            path,
            expected,
        } in examples()
        {
            assert_eq!(placement(&format!("{path}\n")), expected, "{what}: {path}");
        }
    }

    #[test]
    fn the_recorded_examples_cover_runtimes_versions_and_drivers() {
        let containers: Vec<_> = examples()
            .into_iter()
            .filter(|it| it.expected.container.is_some())
            .collect();
        for runtime in ["docker", "containerd", "cri-o", "podman"] {
            for other in ["v1", "v2", "systemd", "cgroupfs"] {
                let is_one = |it: &&Example| {
                    it.what.starts_with(runtime) && it.what.split(", ").any(|word| word == other)
                };
                assert!(
                    containers.iter().any(|it| is_one(&it)),
                    "{runtime}, {other}"
                );
            }
        }
        for runtime in ["docker", "podman"] {
            let rootless = |it: &Example| it.what == format!("{runtime}, v2, systemd, rootless");
            assert!(containers.iter().any(rootless), "{runtime}, rootless");
        }
    }

    #[test]
    fn version_1_paths_of_the_root_name_nothing() {
        assert_eq!(placement("9:pids:/\n0::/\n"), Placement::default());
    }
}
