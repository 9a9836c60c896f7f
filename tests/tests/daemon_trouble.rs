//! The daemon in trouble: Redis away, the disk full, a bad configuration, the wrong people.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer;
use connleak_tests::unit::Unit;
use connleak_tests::wait;

fn signal(pid: u32, signal: i32) {
    // SAFETY: kill has no memory effects; the server is our unreaped child.
    unsafe {
        libc::kill(pid as i32, signal);
    }
}

#[test]
fn a_hung_redis_is_said_once_and_tracing_goes_on() -> Result<()> {
    if !gate::open("a_hung_redis_is_said_once", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let text = fs::read_to_string(home.config())?;
    fs::write(
        home.config(),
        text.replace("[redis]\n", "[redis]\ntimeout = \"200ms\"\n"),
    )?;
    let daemon = home.start()?;
    daemon.says("redis is up")?;
    signal(redis.pid(), libc::SIGSTOP);
    daemon.says("redis is hung")?;
    // The kernel accepts for the stopped server.
    let open: Vec<_> = (0..13)
        .map(|_| std::net::TcpStream::connect(redis.v4()))
        .collect();
    daemon.says("HEALTHY -> WARNING")?;
    signal(redis.pid(), libc::SIGCONT);
    wait::until("redis to be up again", || {
        (daemon.count("redis is up") == 2).then_some(())
    })?;
    ensure!(daemon.count("redis is hung") == 1, "{:#?}", daemon.said());
    drop(open);
    signal(redis.pid(), libc::SIGKILL);
    daemon.says("redis is down")?;
    daemon.says("WARNING -> HEALTHY")?;
    ensure!(daemon.status()?["redis"]["state"] == "down");
    Ok(())
}

/// What a client with the right to do so tells Redis, line by line.
fn tell(redis: &RedisServer, lines: &str) -> Result<()> {
    let mut stream = std::net::TcpStream::connect(redis.v4())?;
    stream.set_read_timeout(Some(wait::patience()))?;
    stream.write_all(format!("{lines}QUIT\r\n").as_bytes())?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers)?;
    ensure!(!answers.contains('-'), "{answers}");
    Ok(())
}

#[test]
fn a_changed_password_is_said_once_and_taken_up_and_no_password_is_ever_shown() -> Result<()> {
    if !gate::open("a_changed_password_is_said_once", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    tell(&redis, "CONFIG SET requirepass first-secret\r\n")?;
    let home = Home::new()?;
    // As systemd hands it over: LoadCredential=redis:PATH.
    let credentials = home.path("credentials");
    fs::create_dir(&credentials)?;
    fs::write(credentials.join("redis"), "first-secret\n")?;
    home.configure_redis(redis.port(), "", "password_credential = \"redis\"")?;
    let env = [(
        "CREDENTIALS_DIRECTORY",
        credentials.clone().into_os_string(),
    )];
    let daemon = home.start_with(&[], &env)?;
    daemon.says("redis is up")?;

    let change = "AUTH first-secret\r\nCONFIG SET requirepass second-secret\r\n\
                  CLIENT KILL TYPE normal\r\n";
    tell(&redis, change)?;
    daemon.says("redis is denied")?;
    let open: Vec<_> = (0..13)
        .map(|_| std::net::TcpStream::connect(redis.v4()))
        .collect();
    daemon.says("HEALTHY -> WARNING")?;
    ensure!(daemon.status()?["redis"]["state"] == "denied");
    fs::write(credentials.join("redis"), "second-secret\n")?;
    wait::until("redis to be up again", || {
        (daemon.count("redis is up") == 2).then_some(())
    })?;
    ensure!(daemon.count("redis is denied") == 1, "{:#?}", daemon.said());
    drop(open);

    let proc = std::path::PathBuf::from(format!("/proc/{}", daemon.pid()));
    let mut shown = daemon.said().join("\n") + &daemon.status()?.to_string();
    for file in ["cmdline", "environ"] {
        shown += &String::from_utf8_lossy(&fs::read(proc.join(file))?);
    }
    ensure!(!shown.contains("-secret"), "{shown}");
    Ok(())
}

/// A file system too small for any evidence.
struct FullDisk(std::path::PathBuf);

impl FullDisk {
    fn mount(at: std::path::PathBuf) -> Result<Self> {
        fs::create_dir_all(&at)?;
        let options = ["-t", "tmpfs", "-o", "size=4k", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&at).status()?;
        ensure!(mounted.success(), "failed to mount a tmpfs");
        Ok(Self(at))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_the_action_follows_all_the_same() -> Result<()> {
    if !gate::open("a_full_disk_is_said", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    let units = format!(
        "[[unit]]\nname = \"{}\"\nactions = [\"exec\"]\nexec = [\"/bin/sh\", \"-c\", \"{}\"]\n",
        leaky.name(),
        leaky.killer()
    );
    home.configure(redis.port(), "verify_window = \"1s\"", &units)?;
    let _disk = FullDisk::mount(home.path("evidence"))?;
    let daemon = home.start()?;
    let _leak = leaky.client(redis.port(), 60)?;
    daemon.says("failed to write evidence")?;
    daemon.says("action 1 on")?;
    daemon.says("-> HEALTHY")?;
    ensure!(home.evidence().is_empty());
    Ok(())
}

#[test]
fn a_bad_reload_keeps_the_old_configuration() -> Result<()> {
    if !gate::open("a_bad_reload_keeps_the_old_configuration", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let daemon = home.start()?;
    let good = fs::read_to_string(home.config())?;
    fs::write(
        home.config(),
        good.replace("[policy]", "warning = 200\n[policy]"),
    )?;
    daemon.signal(libc::SIGHUP);
    let line = daemon.says("the old one is kept")?;
    ensure!(line.text.contains("connleak.toml:"), "{line:?}");
    ensure!(daemon.status()?["subjects"][0]["warning"] == 26);

    fs::write(
        home.config(),
        good.replace("[policy]", "warning = 10\n[policy]"),
    )?;
    daemon.signal(libc::SIGHUP);
    daemon.says("the configuration was reloaded")?;
    ensure!(daemon.status()?["subjects"][0]["warning"] == 10);
    let _open: Vec<_> = (0..5)
        .map(|_| std::net::TcpStream::connect(redis.v4()))
        .collect();
    daemon.says("HEALTHY -> WARNING at 10")?;

    // Another port is watched without a restart of the daemon.
    let other = RedisServer::start()?;
    let (from, to) = (redis.port().to_string(), other.port().to_string());
    fs::write(home.config(), good.replace(&from, &to))?;
    daemon.signal(libc::SIGHUP);
    let port = u64::from(other.port());
    wait::until("the other port to be watched", || {
        let status = daemon.status().ok()?;
        (status["ports"][0]["port"] == port).then_some(())
    })?;
    let _more: Vec<_> = (0..13)
        .map(|_| std::net::TcpStream::connect(other.v4()))
        .collect();
    daemon.says(&format!("port {port}: HEALTHY -> WARNING"))?;
    Ok(())
}

/// EX_CONFIG of sysexits.h, which the unit names.
const BAD_CONFIG: i32 = 78;

#[test]
fn check_config_names_file_and_line() -> Result<()> {
    let home = Home::new()?;
    home.configure(6379, "", "[[unit]]\nname = \"no unit name\"\n")?;
    let config = home.config();
    let path = config.to_str().context("a path of text")?;
    let ended = tracer::run(&["daemon", "--check-config", "--config", path])?;
    ensure!(ended.status.code() == Some(BAD_CONFIG), "{ended:?}");
    let said = ended.stderr.join("\n");
    ensure!(
        said.contains("connleak.toml:") && said.contains("no unit name"),
        "{said}"
    );

    home.configure(6379, "", "")?;
    let ended = tracer::run(&["daemon", "--check-config", "--config", path])?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(())
}

#[test]
fn a_daemon_with_a_bad_configuration_ends_with_a_code_of_its_own() -> Result<()> {
    let home = Home::new()?;
    let config = home.config();
    let path = config.to_str().context("a path of text")?;
    for bad in [&b"[[watch]]\nport = 0\n"[..], b"[watch", b"\xff\xfe"] {
        fs::write(&config, bad)?;
        let ended = tracer::run(&["daemon", "--config", path])?;
        ensure!(
            ended.status.code() == Some(BAD_CONFIG),
            "{bad:?}: {ended:?}"
        );
        ensure!(
            ended.stderr.join("\n").contains("connleak.toml"),
            "{ended:?}"
        );
    }
    // What is missing may come yet: to be tried again.
    fs::remove_file(&config)?;
    let ended = tracer::run(&["daemon", "--config", path])?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");
    // Others that read the configuration fail as they always do.
    fs::write(&config, "[watch")?;
    let ended = tracer::run(&["status", "--config", path])?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");
    Ok(())
}

#[test]
fn the_control_socket_is_closed_to_others() -> Result<()> {
    if !gate::open("the_control_socket_is_closed_to_others", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let daemon = home.start()?;
    let found = fs::metadata(daemon.socket())?;
    ensure!(found.permissions().mode() & 0o777 == 0o600);
    ensure!((found.uid(), found.gid()) == (0, 0));
    // Open to everyone by file mode: the daemon asks who it is all the same.
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666))?;
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755))?;
    let socket = daemon.socket().to_owned();
    let answer = std::thread::spawn(move || -> Result<String> {
        // SAFETY: the raw call changes this thread only, which ends here.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        ensure!(changed == 0);
        // SAFETY: as above. The group goes by fsgid of the socket's peer credentials.
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(wait::patience()))?;
        stream.write_all(b"{\"request\":\"ack\"}\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    ensure!(answer.contains("only root"), "{answer}");
    Ok(())
}

/// Asks for the status as nobody of that group; None where the file system forbids it.
fn ask_as(socket: &std::path::Path, gid: u32) -> Result<Option<String>> {
    let socket = socket.to_owned();
    std::thread::spawn(move || -> Result<Option<String>> {
        // SAFETY: the raw calls change this thread only, which ends here.
        let changed = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) == 0
                && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                && libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) == 0
        };
        ensure!(changed, "{}", std::io::Error::last_os_error());
        let Ok(mut stream) = UnixStream::connect(socket) else {
            return Ok(None);
        };
        stream.set_read_timeout(Some(wait::patience()))?;
        stream.write_all(b"{\"request\":\"status\"}\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Some(text))
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

#[test]
fn the_control_socket_is_open_to_one_group() -> Result<()> {
    if !gate::open("the_control_socket_is_open_to_one_group", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    home.change("group = \"\"", "group = \"games\"")?;
    let games = fs::read_to_string("/etc/group")?;
    let games = games.lines().find_map(|line| line.strip_prefix("games:x:"));
    let gid = games.and_then(|rest| rest.split(':').next()?.parse().ok());
    let gid: u32 = gid.context("a group games in /etc/group")?;
    let daemon = home.start()?;
    let found = fs::metadata(daemon.socket())?;
    ensure!(found.permissions().mode() & 0o777 == 0o660);
    ensure!((found.uid(), found.gid()) == (0, gid));
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755))?;
    let answer = ask_as(daemon.socket(), gid)?.context("a member may connect")?;
    ensure!(answer.contains("connleak.status/1"), "{answer}");
    ensure!(ask_as(daemon.socket(), gid + 1)?.is_none());
    Ok(())
}

#[test]
fn the_manager_is_told_ready_alive_reloading_and_stopping() -> Result<()> {
    if !gate::open("the_manager_is_told", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let manager = UnixDatagram::bind(home.path("notify"))?;
    manager.set_read_timeout(Some(Duration::from_secs(60)))?;
    let env = [
        ("NOTIFY_SOCKET", home.path("notify").into_os_string()),
        ("WATCHDOG_USEC", "400000".into()),
    ];
    let daemon = home.start_with(&[], &env)?;
    let until = |part: &str| -> Result<String> {
        let mut bytes = [0u8; 4096];
        loop {
            let length = manager.recv(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(part) {
                return Ok(text);
            }
        }
    };
    until("READY=1")?;
    until("WATCHDOG=1")?;
    until("WATCHDOG=1")?;
    daemon.signal(libc::SIGHUP);
    let text = until("RELOADING=1")?;
    ensure!(text.contains("MONOTONIC_USEC="), "{text}");
    until("READY=1")?;
    daemon.signal(libc::SIGTERM);
    until("STOPPING=1")?;
    Ok(())
}
