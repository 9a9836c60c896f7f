//! The site: the application frame that a person would go to, and the frames around it folded.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::glob::matches;
use super::library::LIBRARY_RULES;
use super::{Frame, FrameKind};
use crate::config::{SiteRule, Subject};

/// The rules in force: extra ones first, the first match decides.
#[derive(Clone, Debug, Default)]
pub struct SiteRules {
    extra: Vec<SiteRule>,
}

/// Where a stack is reported: function, file and line of its site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Site {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub module: Option<String>,
}

/// One line of a stack as a table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldedFrame<'stack> {
    Application(&'stack Frame),
    /// Neighbouring library frames, the innermost of them.
    Library {
        count: usize,
        innermost: &'stack Frame,
    },
}

impl SiteRules {
    /// `extra` rules come before the built-in ones.
    pub fn new(extra: Vec<SiteRule>) -> Self {
        Self { extra }
    }

    /// Not libc, a runtime, an interpreter, a standard library or a client library.
    pub fn is_application(&self, frame: &Frame) -> bool {
        for rule in &self.extra {
            if is_match(rule.subject, &rule.pattern, frame) {
                return rule.application;
            }
        }
        let is_library = LIBRARY_RULES.iter().any(|(kinds, subject, patterns)| {
            (kinds.is_empty() || kinds.contains(&frame.kind))
                && patterns
                    .iter()
                    .any(|pattern| is_match(*subject, pattern, frame))
        });
        !is_library && frame.kind != FrameKind::Kernel
    }

    fn application_frames(&self, frames: &[Frame]) -> Vec<bool> {
        let mut in_rust_runtime = false;
        let is_application = |frame: &Frame| {
            let function = frame.function.as_deref().unwrap_or_default();
            in_rust_runtime |= function.starts_with("std::rt::lang_start");
            // rustc's `main` calls the runtime, which calls the one that a person wrote.
            self.is_application(frame) && !(in_rust_runtime && function == "main")
        };
        frames.iter().map(is_application).collect()
    }

    /// The innermost application frame that has a name; failing that, the innermost one.
    pub fn site(&self, frames: &[Frame]) -> Option<Site> {
        let own = self.application_frames(frames);
        let own = || frames.iter().zip(&own).filter(|(_, own)| **own);
        let (frame, _) = own()
            .find(|(frame, _)| frame.function.is_some())
            .or_else(|| own().next())?;
        Some(Site {
            function: frame.function.clone(),
            file: frame.file.clone(),
            line: frame.line,
            module: frame.module.clone(),
        })
    }

    /// Innermost first like the stack. The frames below the outermost application frame, a
    /// runtime's start, are left out; a stack without application frames is left as it is.
    pub fn fold<'stack>(&self, frames: &'stack [Frame]) -> Vec<FoldedFrame<'stack>> {
        let own = self.application_frames(frames);
        let Some(outermost) = own.iter().rposition(|own| *own) else {
            return frames.iter().map(FoldedFrame::Application).collect();
        };
        let mut folded = Vec::new();
        for (frame, own) in frames[..=outermost].iter().zip(own) {
            match folded.last_mut() {
                _ if own => folded.push(FoldedFrame::Application(frame)),
                Some(FoldedFrame::Library { count, .. }) => *count += 1,
                _ => folded.push(FoldedFrame::Library {
                    count: 1,
                    innermost: frame,
                }),
            }
        }
        folded
    }

    /// For tables: application frames first, the library frames inside them folded and last.
    pub fn fold_for_table<'stack>(&self, frames: &'stack [Frame]) -> Vec<FoldedFrame<'stack>> {
        let mut folded = self.fold(frames);
        if let Some(FoldedFrame::Library { .. }) = folded.first() {
            folded.rotate_left(1);
        }
        folded
    }
}

fn is_match(subject: Subject, pattern: &str, frame: &Frame) -> bool {
    let text = match subject {
        Subject::Function => &frame.function,
        Subject::File => &frame.file,
        Subject::Module => &frame.module,
    };
    let Some(text) = text.as_deref() else {
        return false;
    };
    match subject {
        Subject::Module if !pattern.contains('/') => matches(pattern, last_part(text)),
        _ => matches(pattern, text),
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

impl fmt::Display for Site {
    /// `worker.py:88 get_recent_ticks`, or what is known of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = self.function.as_deref().unwrap_or("(no name)");
        match (&self.file, self.line, &self.module) {
            (Some(file), Some(line), _) => write!(f, "{}:{line} {function}", last_part(file)),
            (Some(file), None, _) => write!(f, "{} {function}", last_part(file)),
            (None, _, Some(module)) => write!(f, "{function} in {}", last_part(module)),
            (None, _, None) => f.write_str(function),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, function: &str, file: &str, module: &str) -> Frame {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Frame {
            function: text(function),
            file: text(file),
            line: text(file).map(|_| 7),
            module: text(module),
            kind,
            inlined: false,
        }
    }

    fn native(function: &str, module: &str) -> Frame {
        frame(FrameKind::Native, function, "", module)
    }

    fn site_of(frames: &[Frame]) -> String {
        let site = SiteRules::default().site(frames);
        site.map_or_else(String::new, |site| site.to_string())
    }

    #[test]
    fn a_c_client_is_reported_at_the_caller_of_the_client_library() {
        let frames = [
            native("__libc_connect", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
            native(
                "redisConnect",
                "/usr/lib/x86_64-linux-gnu/libhiredis.so.0.14",
            ),
            native("get_client", "/srv/orders/server"),
            native("main", "/srv/orders/server"),
            native("__libc_start_main", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
        ];
        assert_eq!(site_of(&frames), "get_client in server");
        let rules = SiteRules::default();
        let folded = rules.fold_for_table(&frames);
        assert_eq!(folded.len(), 3);
        assert_eq!(folded[0], FoldedFrame::Application(&frames[2]));
        assert_eq!(folded[1], FoldedFrame::Application(&frames[3]));
    }

    #[test]
    fn a_statically_linked_client_is_skipped_by_its_functions() {
        let server = "/srv/orders/server";
        let frames = [
            native("__connect", server),
            native("redisContextConnectTcp", server),
            native("redisConnectWithTimeout", server),
            native("open_pool", server),
        ];
        assert_eq!(site_of(&frames), "open_pool in server");
    }

    #[test]
    fn rust_sites_skip_crates_and_the_generated_main() {
        let server = "/srv/orders";
        let frames = [
            native("__libc_connect", "/lib/libc.so.6"),
            native("std::net::tcp::TcpStream::connect", server),
            native("redis::connection::connect", server),
            native("<redis::client::Client>::get_connection", server),
            frame(
                FrameKind::Native,
                "orders::get_client",
                "src/main.rs",
                server,
            ),
            native(
                "<orders::Work as core::future::future::Future>::poll",
                server,
            ),
            native("<tokio::runtime::task::Core<T>>::poll", server),
            native("orders::main", server),
            native("std::rt::lang_start::<()>", server),
            native("main", server),
        ];
        assert_eq!(site_of(&frames), "main.rs:7 orders::get_client");
        let rules = SiteRules::default();
        let folded = rules.fold(&frames);
        assert_eq!(folded.last(), Some(&FoldedFrame::Application(&frames[7])));
        assert!(matches!(folded[0], FoldedFrame::Library { count: 4, .. }));
        assert_eq!(folded[2], FoldedFrame::Application(&frames[5]));
    }

    #[test]
    fn python_sites_skip_the_interpreter_and_its_packages() {
        let python = "/usr/bin/python3.11";
        let frames = [
            native("__libc_connect", "/lib/libc.so.6"),
            native("sock_connect", python),
            frame(
                FrameKind::Python,
                "Connection.connect",
                "/venv/lib/python3.11/site-packages/redis/connection.py",
                "",
            ),
            frame(
                FrameKind::Python,
                "get_recent_ticks",
                "/srv/app/worker.py",
                "",
            ),
            native("_PyEval_EvalFrameDefault", python),
        ];
        assert_eq!(site_of(&frames), "worker.py:7 get_recent_ticks");
    }

    #[test]
    fn go_sites_skip_the_runtime_and_modules() {
        let go = |function: &str| frame(FrameKind::Go, function, "", "/srv/ticks");
        let frames = [
            go("internal/runtime/syscall.Syscall6"),
            go("net.(*sysDialer).dialTCP"),
            go("github.com/redis/go-redis/v9.(*Client).Ping"),
            go("main.handleOrder"),
            go("main.main"),
            go("runtime.main"),
        ];
        assert_eq!(site_of(&frames), "main.handleOrder in ticks");
    }

    #[test]
    fn php_and_java_sites_skip_what_comes_with_the_language() {
        let php = |function: &str, file: &str, module: &str| {
            frame(FrameKind::Php, function, file, module)
        };
        let frames = [
            php("Redis::connect", "", "php"),
            php(
                "Predis\\Client::connect",
                "/srv/vendor/predis/Client.php",
                "",
            ),
            php("get_client", "/srv/orders.php", ""),
        ];
        assert_eq!(site_of(&frames), "orders.php:7 get_client");
        let jit = |function: &str| frame(FrameKind::Jit, function, "", "");
        let frames = [
            jit("Interpreter"),
            jit("java.net.Socket.connect"),
            jit("Orders.getClient"),
        ];
        assert_eq!(site_of(&frames), "Orders.getClient");
        let java = |function: &str, file: &str| frame(FrameKind::Java, function, file, "");
        let frames = [
            java("java.net.Socket.<init>", "Socket.java"),
            java("redis.clients.jedis.Connection.connect", "Connection.java"),
            java(
                "org.apache.commons.pool2.impl.GenericObjectPool.create",
                "GenericObjectPool.java",
            ),
            java("shop.Orders.getClient", "Orders.java"),
            jit("StubRoutines (1)"),
        ];
        assert_eq!(site_of(&frames), "Orders.java:7 shop.Orders.getClient");
    }

    #[test]
    fn ruby_sites_skip_gems_and_the_library_of_the_language() {
        let ruby = |function: &str, file: &str| frame(FrameKind::Ruby, function, file, "");
        let frames = [
            native(
                "rsock_connect",
                "/usr/lib/x86_64-linux-gnu/ruby/3.1.0/socket.so",
            ),
            ruby("tcp", "/usr/lib/ruby/3.1.0/socket.rb"),
            ruby(
                "connect",
                "/usr/share/rubygems-integration/all/gems/a-1/a.rb",
            ),
            ruby("connect", "/usr/lib/ruby/vendor_ruby/redis/client.rb"),
            ruby("ping", "/usr/local/bundle/gems/redis-5.0.6/lib/redis.rb"),
            ruby("loop", "<internal:kernel>"),
            ruby("block in get_client", "/srv/orders.rb"),
            ruby("main", "/srv/orders.rb"),
        ];
        assert_eq!(site_of(&frames), "orders.rb:7 block in get_client");
    }

    #[test]
    fn extra_rules_decide_first() {
        let rule = |pattern: &str, application| SiteRule {
            subject: Subject::Function,
            pattern: pattern.to_owned(),
            application,
        };
        let rules = SiteRules::new(vec![
            rule("pool_*", false),
            rule("redisConnectLogged", true),
        ]);
        let frames = [
            native("redisConnectLogged", "/srv/server"),
            native("pool_open", "/srv/server"),
            native("work", "/srv/server"),
        ];
        let site = |frames| rules.site(frames).and_then(|site| site.function);
        assert_eq!(site(&frames).as_deref(), Some("redisConnectLogged"));
        assert_eq!(site(&frames[1..]).as_deref(), Some("work"));
    }

    #[test]
    fn a_stack_without_application_frames_has_no_site_and_is_not_folded() {
        let frames = [native("connect", "/lib/libc.so.6"), native("", "[vdso]")];
        let rules = SiteRules::default();
        assert_eq!(rules.site(&frames), None);
        assert_eq!(rules.fold(&frames).len(), 2);
    }
}
