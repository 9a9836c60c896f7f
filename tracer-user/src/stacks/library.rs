//! The library rules: which frames are not the user's own code, as data.

use super::FrameKind::{self, Go, Java, Jit, Native, Node, Php, Python, Ruby};
use super::glob::matches;
use crate::config::Subject::{self, File, Function, Module};

/// Runtimes (all if empty), what is looked at, patterns.
type LibraryRule = (&'static [FrameKind], Subject, &'static [&'static str]);

pub(super) const LIBRARY_RULES: &[LibraryRule] = &[
    (&[], Module, SYSTEM_MODULES),
    (&[Native, Jit, Php], Module, INTERPRETER_MODULES),
    (&[Jit, Java], Function, JAVA_FUNCTIONS),
    (&[Native], Function, C_FUNCTIONS),
    (&[Native], Function, RUST_FUNCTIONS),
    (&[Native], File, RUST_FILES),
    (&[Native], Function, CPP_FUNCTIONS),
    (&[Go], Function, GO_FUNCTIONS),
    (&[Go], File, GO_FILES),
    (&[Python], File, PYTHON_FILES),
    (&[Php], File, PHP_FILES),
    (&[Ruby], File, RUBY_FILES),
    (&[Node], File, NODE_FILES),
];

/// Is the module at `path` one of the system's own? Its functions are worth a name; its lines nobody
/// goes to, and to unpack the debug information of libc costs more than all else of a first stack.
pub(super) fn is_system(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut patterns = SYSTEM_MODULES.iter();
    patterns.any(|pattern| matches(pattern, name))
}

/// Names of modules; with a slash, whole paths.
const SYSTEM_MODULES: &[&str] = &[
    "[vdso]",
    "libc.so*",
    "libc-2.*",
    "libpthread*",
    "ld-linux*",
    "ld-2.*",
    "ld-musl-*",
    "libm.so*",
    "libresolv*",
    "libnss_*",
    "libstdc++*",
    "libgcc_s*",
    "libssl*",
    "libcrypto*",
    "libhiredis*",
    "libvalkey*",
    "libredis++*",
    "libevent*",
    "libev.so*",
    "libuv.so*",
    "libglib-*",
    "libffi*",
    "libjemalloc*",
    "libtcmalloc*",
    "libasan*",
    "libtsan*",
];

/// Programs that run other people's code: their C frames are never the site.
const INTERPRETER_MODULES: &[&str] = &[
    "python2*",
    "python3*",
    "python",
    "libpython*",
    "*/lib/python*.so",
    "*/site-packages/*.so",
    "*/dist-packages/*.so",
    "*/lib-dynload/*",
    "node",
    "nodejs",
    "libnode*",
    "php",
    "php7*",
    "php8*",
    "php-fpm*",
    "libphp*",
    "*/php/*.so",
    "ruby",
    "ruby2*",
    "ruby3*",
    "libruby*",
    "*/ruby/*.so",
    "*/gems/*.so",
    "java",
    "libjvm.so*",
    "libjava.so*",
    "libjli.so*",
    "libnet.so*",
    "libnio.so*",
    "perl",
    "libperl*",
    "lua",
    "lua5*",
    "luajit*",
    "libluajit*",
];

/// For programs that have libc or a C client linked in.
const C_FUNCTIONS: &[&str] = &[
    "_start",
    "__libc_start*",
    "libc_start_main*",
    "start_thread",
    "clone",
    "clone3",
    "__clone*",
    "connect",
    "__connect*",
    "__libc_connect*",
    "__internal_syscall_cancel",
    "__syscall_cancel*",
    "__syscall_cp*",
    "syscall",
    "redisConnect*",
    "redisAsyncConnect*",
    "redisReconnect*",
    "redisContextConnect*",
    "_redisContextConnect*",
    "_redisAsyncConnect*",
    "valkeyConnect*",
    "valkeyAsyncConnect*",
    "valkeyContextConnect*",
    "redisClusterConnect*",
    "redisCluster*Connect*",
];

const CPP_FUNCTIONS: &[&str] = &[
    "std::*",
    "__gnu_cxx::*",
    "boost::*",
    "sw::redis::*",
    "execute_native_thread_routine",
];

/// Crates below the application: `<redis::..` is a trait's method on a type of the crate.
const RUST_FUNCTIONS: &[&str] = &[
    "core::*",
    "<core::*",
    "std::*",
    "<std::*",
    "alloc::*",
    "<alloc::*",
    "__rust_*",
    "rust_begin_*",
    "__rustc::*",
    // Blanket implementations, whose type has no name. A trait of the library on a type of the
    // application is the application's code.
    "<T as *",
    "<F as *",
    "<I as *",
    "<S as *",
    "<P as *",
    "<&mut F as *",
    "tokio::*",
    "<tokio::*",
    "tokio_util::*",
    "<tokio_util::*",
    "mio::*",
    "<mio::*",
    "socket2::*",
    "<socket2::*",
    "futures::*",
    "<futures::*",
    "futures_*::*",
    "<futures_*::*",
    "async_std::*",
    "<async_std::*",
    "async_io::*",
    "<async_io::*",
    "async_executor::*",
    "<async_executor::*",
    "smol::*",
    "<smol::*",
    "rayon::*",
    "rayon_core::*",
    "<rayon*",
    "redis::*",
    "<redis::*",
    "fred::*",
    "<fred::*",
    "combine::*",
    "<combine::*",
    "r2d2::*",
    "<r2d2::*",
    "r2d2_redis::*",
    "bb8::*",
    "<bb8::*",
    "bb8_redis::*",
    "<bb8_redis::*",
    "deadpool::*",
    "<deadpool::*",
    "deadpool_redis::*",
    "<deadpool_redis::*",
    "deadpool_runtime::*",
    "mobc::*",
    "<mobc::*",
    "tower::*",
    "<tower*",
    "hyper::*",
    "<hyper*",
    "hyper_util::*",
    "tracing::*",
    "<tracing::*",
    "tracing_*::*",
    "rustls::*",
    "<rustls*",
    "tokio_rustls::*",
    "tokio_native_tls::*",
    "native_tls::*",
    "openssl::*",
    "arc_swap::*",
    "backon::*",
    "scopeguard::*",
    "pin_project*",
];

/// Generic code of a library can be named after its caller's types; its file tells.
const RUST_FILES: &[&str] = &[
    "/rustc/*",
    // Below ~/.cargo, or wherever CARGO_HOME points.
    "*/registry/src/*",
    "*/.rustup/toolchains/*",
    "*/lib/rustlib/src/*",
];

const GO_FUNCTIONS: &[&str] = &[
    "runtime.*",
    "runtime/*",
    "internal/*",
    "net.*",
    "net/*",
    "syscall.*",
    "sync.*",
    "sync/*",
    "os.*",
    "os/*",
    "context.*",
    "crypto/*",
    "crypto.*",
    "bufio.*",
    "io.*",
    "time.*",
    "reflect.*",
    "golang.org/x/*",
    "github.com/redis/*",
    "github.com/go-redis/*",
    "github.com/gomodule/redigo*",
    "github.com/garyburd/redigo*",
    "github.com/mediocregopher/radix*",
    "github.com/valkey-io/*",
    "github.com/rueian/rueidis*",
    "_rt0_*",
];

const GO_FILES: &[&str] = &["*/pkg/mod/*", "*/go/src/runtime/*"];

/// With their class, as Java's own traces have them; in a perf map a type that a method returns may
/// stand before it.
const JAVA_FUNCTIONS: &[&str] = &[
    "java.*",
    "javax.*",
    "jdk.*",
    "sun.*",
    "com.sun.*",
    "*redis.clients.jedis.*",
    "*org.apache.commons.pool2.*",
    "*io.valkey.*",
    "*io.lettuce.*",
    "*io.netty.*",
    "*org.redisson.*",
    "*reactor.core.*",
    "*org.springframework.*",
    "* java.*",
    "* jdk.*",
    "* sun.*",
    "Interpreter*",
    "StubRoutines*",
    "*_stub",
    "*~*",
];

const PYTHON_FILES: &[&str] = &[
    "<frozen *",
    "<string>*importlib*",
    "*/site-packages/*",
    "*/dist-packages/*",
    "*/lib/python2.*",
    "*/lib/python3.*",
    "*/lib64/python3.*",
    "*python3*.zip/*",
    "uvloop/*",
    "*/uvloop/loop.*",
    "*gevent/*.pyx",
];

const PHP_FILES: &[&str] = &["*/vendor/*", "/usr/share/php/*", "phar://*"];

/// Ruby's own library, what a distribution adds to it, and gems wherever they are installed.
const RUBY_FILES: &[&str] = &[
    "<internal:*",
    "*/lib/ruby/*",
    "*/share/ruby/*",
    "*/share/rubygems-integration/*",
    "*/gems/*",
    "*/vendor/bundle/*",
];

const NODE_FILES: &[&str] = &["*/node_modules/*", "node:*"];
