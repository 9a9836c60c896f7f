//! The checks, in the order in which their remedies would be tried.

use std::{path::PathBuf, time::Duration};

use super::{Check, Diagnosis, DoctorArgs, Outcome};
use crate::{
    host::Host,
    kernel::{Family, Hook, Options, PERF_TRACEPOINT, PREEMPTED, Probes, ProgramCost, support},
};

/// The ring buffer (5.8) and the iterators (5.9) set it; tests run from here on.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
const REDIS_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn diagnose(args: &DoctorArgs) -> Diagnosis {
    let host = Host::here();
    let btf = args.hooks.btf.btf.clone();
    let mut checks = vec![
        kernel(&host.kernel),
        capabilities(),
        lockdown(),
        pid_namespace(),
        perf_event_paranoid(),
        memlock(&host.kernel),
    ];
    let programs = hooks(args.hooks.probes.forced(), btf.as_ref(), &mut checks);
    for family in [Family::Fentry, Family::Kprobe] {
        checks.push(availability(family, btf.clone()));
    }
    checks.push(walk(btf));
    checks.push(sizes());
    for &port in &args.ports.ports {
        checks.push(redis(port).await);
    }
    Diagnosis {
        schema: "connleak.doctor/1",
        version: env!("CARGO_PKG_VERSION"),
        kernel: host.kernel,
        outcome: checks
            .iter()
            .map(|check| check.outcome)
            .max()
            .unwrap_or(Outcome::Ok),
        checks,
        programs,
    }
}

fn ok(name: &str, found: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        outcome: Outcome::Ok,
        found: found.into(),
        remedy: None,
    }
}

fn not_ok(name: &str, outcome: Outcome, found: impl Into<String>, remedy: &str) -> Check {
    Check {
        name: name.to_owned(),
        outcome,
        found: found.into(),
        remedy: Some(remedy.to_owned()),
    }
}

/// (5, 10) of `5.10.0-30-cloud-amd64`
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Check {
    match version(release) {
        Some(version) if version < OLDEST_KERNEL => not_ok(
            "kernel",
            Outcome::Failed,
            release,
            "boot a kernel of 5.10 or later",
        ),
        _ => ok("kernel", release),
    }
}

fn capabilities() -> Check {
    let missing = support::missing_capabilities();
    if missing.is_empty() {
        return ok("capabilities", "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE");
    }
    not_ok(
        "capabilities",
        Outcome::Failed,
        format!("missing {}", missing.join(", ")),
        "run as root: sudo connleak doctor",
    )
}

fn lockdown() -> Check {
    match support::lockdown().as_deref() {
        Some("confidentiality") => not_ok(
            "lockdown",
            Outcome::Failed,
            "confidentiality: BPF may not read kernel memory",
            "boot with lockdown=integrity or lockdown=none",
        ),
        Some(mode) => ok("lockdown", mode),
        None => ok("lockdown", "not in this kernel"),
    }
}

fn pid_namespace() -> Check {
    if support::is_first_pid_namespace() {
        return ok("PID namespace", "the host's");
    }
    not_ok(
        "PID namespace",
        Outcome::Degraded,
        "a container's: the kernel's PIDs are not those of /proc, so names and stacks are missing",
        "run connleak in the host's PID namespace: --pid=host or hostPID: true",
    )
}

fn perf_event_paranoid() -> Check {
    match support::perf_event_paranoid() {
        Some(level) => ok(
            "perf_event_paranoid",
            format!("{level}; CAP_PERFMON is above it"),
        ),
        None => not_ok(
            "perf_event_paranoid",
            Outcome::Note,
            "no perf events in this kernel: no kprobes",
            "build the kernel with CONFIG_PERF_EVENTS=y for kprobes",
        ),
    }
}

fn memlock(release: &str) -> Check {
    match support::memlock_bytes() {
        None => ok("memlock", "unlimited"),
        Some(bytes) if version(release).is_some_and(|version| version >= (5, 11)) => ok(
            "memlock",
            format!(
                "{} KiB; maps are not charged to it since 5.11",
                bytes / 1024
            ),
        ),
        Some(bytes) => ok(
            "memlock",
            format!("{} KiB; raised when maps are made", bytes / 1024),
        ),
    }
}

fn hooks(
    forced: Option<Family>,
    btf: Option<&PathBuf>,
    checks: &mut Vec<Check>,
) -> Vec<ProgramCost> {
    let probes = match support::try_probes(forced, btf.cloned()) {
        Ok(probes) => probes,
        Err(error) => {
            let message = error.to_string();
            // Our errors say what failed, then what to do.
            let (found, remedy) = message
                .rsplit_once("; ")
                .unwrap_or((&message, "see the kernel's log: dmesg | tail"));
            checks.push(not_ok("hooks", Outcome::Failed, found, remedy));
            return Vec::new();
        }
    };
    for (hook, by) in &probes.taken {
        let name = format!("hook {hook}");
        checks.push(match probes.loss_of(*hook) {
            Some(loss) if !loss.starts_with("nothing") => not_ok(
                &name,
                Outcome::Degraded,
                format!("{by}; lost: {loss}"),
                if loss == PREEMPTED {
                    "let perf take the hook: mount -t tracefs tracefs /sys/kernel/tracing"
                } else {
                    "use a kernel with CONFIG_FUNCTION_TRACER=y or CONFIG_KPROBES=y for the rest"
                },
            ),
            Some(loss) => ok(&name, format!("{by}; lost: {loss}")),
            None => ok(&name, *by),
        });
    }
    checks.push(preemption(&probes));
    probes.programs
}

fn preemption(probes: &Probes) -> Check {
    let name = "preemption";
    if !support::preempts_tracepoints() {
        return ok(name, "never in a tracepoint's program");
    }
    let found = "this kernel preempts tracepoints' programs";
    let by_perf = |hook| probes.taken_by(hook) == Some(PERF_TRACEPOINT);
    if by_perf(Hook::State) && by_perf(Hook::Destroy) {
        return ok(
            name,
            format!("{found}, except perf's: state and destroy are perf's, two others beside each"),
        );
    }
    not_ok(
        name,
        Outcome::Degraded,
        format!("{found}, and what it then leaves out is set right a second later"),
        "let perf take the hooks: mount -t tracefs tracefs /sys/kernel/tracing",
    )
}

/// Only told: what is taken instead is a check of its own.
fn availability(family: Family, btf: Option<PathBuf>) -> Check {
    let name = family.to_string();
    match support::try_probes(Some(family), btf) {
        Ok(_) => ok(&name, "available"),
        Err(error) => not_ok(
            &name,
            Outcome::Note,
            error.to_string().split("; ").next().unwrap_or_default(),
            "none needed: --probes auto takes what there is",
        ),
    }
}

fn walk(btf: Option<PathBuf>) -> Check {
    match support::try_walk(btf) {
        Ok(_) => ok("iterators", "task_file, tcp"),
        Err(error) => not_ok(
            "iterators",
            Outcome::Failed,
            error.to_string().split("; ").next().unwrap_or_default(),
            "use a kernel of 5.10 or later, as root",
        ),
    }
}

fn sizes() -> Check {
    let options = Options::default();
    ok(
        "sizes",
        format!(
            "ring {} KiB (--ring-bytes), {} sockets (--max-sockets), stack copy {} KiB (--stack-bytes)",
            options.ring_bytes / 1024,
            options.max_sockets,
            options.stack_bytes / 1024
        ),
    )
}

async fn redis(port: u16) -> Check {
    let name = format!("redis :{port}");
    let answer = tokio::time::timeout(REDIS_PATIENCE, ping(port)).await;
    let found = match answer {
        Ok(Ok(())) => return ok(&name, "answers PING on 127.0.0.1"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer on 127.0.0.1".to_owned(),
    };
    // A server that wants a password is one, and one on another host needs no local answer.
    if found.contains("NOAUTH") || found.contains("Authentication required") {
        return ok(&name, "answers on 127.0.0.1, and wants a password");
    }
    not_ok(
        &name,
        Outcome::Note,
        found,
        &format!("start it, or ignore this if it runs on another host: redis-cli -p {port} ping"),
    )
}

async fn ping(port: u16) -> ::redis::RedisResult<()> {
    let client = ::redis::Client::open(("127.0.0.1", port))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    ::redis::cmd("PING").query_async(&mut connection).await
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_distributions_are_read() {
        assert_eq!(version("5.10.0-30-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("7.2.1+deb14-cloud-amd64"), Some((7, 2)));
    }
}
