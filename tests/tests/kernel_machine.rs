//! The test machine itself: what every other kernel test takes for granted.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitStatus};

fn status(program: &str, arguments: &[&str]) -> ExitStatus {
    Command::new(program)
        .args(arguments)
        .status()
        .expect("the program is there")
}

#[test]
fn loopback_carries_tcp() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("lo is up");
    let address = listener.local_addr().expect("bound");
    TcpStream::connect(address).expect("lo is up");
}

#[test]
fn kernel_states_its_types() {
    assert!(
        std::fs::metadata("/sys/kernel/btf/vmlinux")
            .expect("BTF is built in")
            .len()
            > 1_000_000
    );
}

#[test]
fn redis_python_and_ss_run() {
    assert!(status("redis-server", &["--version"]).success());
    assert!(status("redis-cli", &["--version"]).success());
    assert!(
        status(
            "/usr/bin/python3.11",
            &["-c", "import socket, ssl, asyncio, json"]
        )
        .success()
    );
    assert!(status("ss", &["-tn"]).success());
}
