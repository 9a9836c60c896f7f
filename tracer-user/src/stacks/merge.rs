//! Native and interpreter frames of one connect, made one stack.

use super::glob::matches;
use super::interpreters::{FramesEnd, NamedFrames};
use super::node;
use super::{Frame, FrameKind, Stack};

/// Names of the modules that are the interpreter: its C frames stand for the frames they run. With
/// a slash, whole paths.
const INTERPRETER_MODULES: [(FrameKind, &[&str]); 3] = [
    (
        FrameKind::Python,
        &["python3*", "libpython3*", "*.cpython-3*.so", "*.abi3.so"],
    ),
    (
        FrameKind::Php,
        &["php", "php8*", "php-fpm*", "libphp*", "*/php/2*/*.so"],
    ),
    (
        FrameKind::Ruby,
        &[
            "ruby",
            "ruby2*",
            "ruby3*",
            "libruby*",
            "*/ruby/*.so",
            "*/gems/*.so",
        ],
    ),
];
const NODE: &str = "Node connects from its event loop: no caller is on the stack; `connleak node-preload` has it told";
/// Where a process or a thread begins, which says nothing once its first Python frame is known.
const ROOTS: [&str; 9] = [
    "_start",
    "__libc_start_main*",
    "__libc_start_call_main",
    "libc_start_main*",
    "main",
    "start_thread",
    "clone",
    "clone3",
    "__clone*",
];

/// Replaces the interpreter's own C frames by the frames that it ran.
pub(super) fn merge(native: Stack, interpreter: NamedFrames) -> Stack {
    let is_interpreter = |frame: &Frame| interpreter_of(frame).is_some();
    let outermost_c = native.frames.iter().rposition(is_interpreter);
    if interpreter.frames.is_empty() {
        let mut stack = native;
        if let Some(language) = outermost_c.and_then(|at| interpreter_of(&stack.frames[at])) {
            let cause = match (&interpreter.refusal, interpreter.end) {
                (Some(refusal), _) => refusal,
                (None, FramesEnd::Unasked) => "its interpreter was not known yet when it connected",
                (None, FramesEnd::NoState) => "the thread's state was not found",
                (None, FramesEnd::Whole) => "the thread ran none",
                (None, FramesEnd::Bounded | FramesEnd::Fault) => "they could not be read",
            };
            let language = match language {
                FrameKind::Php => "PHP",
                FrameKind::Ruby => "Ruby",
                _ => "Python",
            };
            add_note(&mut stack.note, &format!("no {language} frames: {cause}"));
        } else if is_node(&stack.frames) {
            add_note(&mut stack.note, NODE);
        }
        return stack;
    }
    let innermost_c = native.frames.iter().position(is_interpreter);
    // Nothing of the interpreter was unwound: what was lies within its innermost call.
    let inside = innermost_c.unwrap_or(native.frames.len());
    let outside = outermost_c.map_or(native.frames.len(), |last| last + 1);
    let mut frames = native.frames;
    let after = frames.split_off(outside);
    frames.truncate(inside);
    frames.extend(interpreter.frames);
    frames.extend(after.into_iter().filter(|frame| !is_root(frame)));
    let mut stack = Stack {
        frames,
        // With the interpreter's frames whole, no frame of a person is missing.
        note: native.note.filter(|_| interpreter.end != FramesEnd::Whole),
    };
    tell_gaps(&mut stack.note, interpreter.end, interpreter.unnamed);
    stack
}

/// Where the native stack was not unwound: the interpreter's frames alone.
pub(super) fn without_native(interpreter: NamedFrames) -> Stack {
    let mut stack = Stack {
        frames: interpreter.frames,
        note: Some("no native frames: too many stacks waited to be unwound".to_owned()),
    };
    tell_gaps(&mut stack.note, interpreter.end, interpreter.unnamed);
    stack
}

fn tell_gaps(note: &mut Option<String>, end: FramesEnd, unnamed: usize) {
    match end {
        FramesEnd::Bounded => add_note(note, "stack ends early: more than 64 frames"),
        FramesEnd::Fault => add_note(note, "stack ends early: a frame could not be read"),
        _ => {}
    }
    if unnamed > 0 {
        let gone = "their code was gone when it was read";
        add_note(note, &format!("{unnamed} frames without name: {gone}"));
    }
}

fn add_note(note: &mut Option<String>, more: &str) {
    *note = Some(match note.take() {
        Some(note) => format!("{note}; {more}"),
        None => more.to_owned(),
    });
}

/// Whose interpreter a native frame belongs to.
fn interpreter_of(frame: &Frame) -> Option<FrameKind> {
    let module = frame.module.as_deref()?;
    if frame.kind != FrameKind::Native {
        return None;
    }
    INTERPRETER_MODULES
        .iter()
        .find(|(_, patterns)| is_module(module, patterns))
        .map(|(language, _)| *language)
}

/// Whether Node ran, whose frames are not read.
fn is_node(frames: &[Frame]) -> bool {
    let mut modules = frames.iter().filter_map(|frame| frame.module.as_deref());
    modules.any(|module| is_module(module, node::MODULES))
}

fn is_module(module: &str, patterns: &[&str]) -> bool {
    let name = module.rsplit('/').next().unwrap_or_default();
    patterns.iter().any(|pattern| match pattern.contains('/') {
        true => matches(pattern, module),
        false => matches(pattern, name),
    })
}

fn is_root(frame: &Frame) -> bool {
    let Some(function) = frame.function.as_deref() else {
        return false;
    };
    ROOTS.iter().any(|pattern| matches(pattern, function))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(function: &str, module: &str) -> Frame {
        Frame {
            function: Some(function.to_owned()),
            file: None,
            line: None,
            module: Some(module.to_owned()),
            kind: FrameKind::Native,
            inlined: false,
        }
    }

    fn python(function: &str) -> Frame {
        Frame {
            file: Some("/srv/worker.py".to_owned()),
            line: Some(88),
            module: None,
            kind: FrameKind::Python,
            ..native(function, "")
        }
    }

    fn c_stack() -> Stack {
        let lib = "/opt/lib/libpython3.12.so.1.0";
        Stack {
            frames: vec![
                native("__libc_connect", "/lib/libc.so.6"),
                native(
                    "sock_connect",
                    "/opt/lib-dynload/_socket.cpython-312-x86_64.so",
                ),
                native("_PyEval_EvalFrameDefault", lib),
                native("uv_run", "/opt/libuv.so"),
                native("Py_RunMain", lib),
                native("uwsgi_cycle", "/usr/bin/uwsgi"),
                native("__libc_start_call_main", "/lib/libc.so.6"),
                native("_start", "/usr/bin/uwsgi"),
            ],
            note: Some("stack ends early: somewhere".to_owned()),
        }
    }

    fn named(end: FramesEnd, functions: &[&str]) -> NamedFrames {
        NamedFrames {
            end,
            frames: functions.iter().map(|function| python(function)).collect(),
            unnamed: 0,
            refusal: None,
        }
    }

    fn functions(stack: &Stack) -> Vec<&str> {
        let names = stack.frames.iter();
        names.filter_map(|f| f.function.as_deref()).collect()
    }

    #[test]
    fn python_frames_stand_where_the_interpreters_own_stood() {
        let stack = merge(c_stack(), named(FramesEnd::Whole, &["get_client", "main"]));
        assert_eq!(
            functions(&stack),
            ["__libc_connect", "get_client", "main", "uwsgi_cycle"]
        );
        assert_eq!(stack.note, None);
    }

    #[test]
    fn without_python_frames_the_native_stack_stays_and_says_why() {
        let stack = merge(c_stack(), named(FramesEnd::Unasked, &[]));
        assert_eq!(stack.frames, c_stack().frames);
        let note = stack.note.expect("a note");
        assert!(note.contains("no Python frames"), "{note}");
    }

    #[test]
    fn an_interpreter_that_is_not_known_is_named() {
        let refused = NamedFrames {
            refusal: Some("CPython 3.16 is not supported".into()),
            ..NamedFrames::default()
        };
        let note = merge(c_stack(), refused).note.expect("a note");
        assert!(
            note.ends_with("no Python frames: CPython 3.16 is not supported"),
            "{note}"
        );
    }

    #[test]
    fn a_native_stack_without_interpreter_gets_no_note() {
        let stack = Stack {
            frames: vec![native("connect", "/srv/server")],
            note: None,
        };
        assert_eq!(merge(stack.clone(), NamedFrames::default()), stack);
    }

    #[test]
    fn runtimes_that_are_not_read_are_told() {
        let note = |function, module: &str| {
            let stack = Stack {
                frames: vec![native(function, module)],
                note: None,
            };
            merge(stack, NamedFrames::default()).note.expect("a note")
        };
        assert!(note("uv__tcp_connect", "/usr/bin/node").contains("event loop"));
        let ruby = "/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1";
        assert!(note("rb_funcallv", ruby).contains("no Ruby frames"));
        assert!(note("execute_ex", "/usr/bin/php8.2").contains("no PHP frames"));
    }

    #[test]
    fn more_frames_than_are_taken_are_told() {
        let stack = merge(c_stack(), named(FramesEnd::Bounded, &["deep"]));
        assert!(stack.note.expect("a note").contains("more than 64 frames"));
    }
}
