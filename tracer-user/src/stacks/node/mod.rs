//! Node: the JavaScript frames that a process with the preload tells at connect.
//!
//! Node connects from its event loop, so the stack at connect has no caller. `preload.js`, which a
//! person loads on purpose, remembers the caller and passes its frames to Node's own connect as
//! further arguments, which V8 pushes onto the machine stack: they come with the copy that is taken
//! at connect, and belong to that connect alone. They are what the process says of itself: bounded,
//! and labelled so.

use super::glob::matches;
use super::{Frame, FrameKind, Stack, StackSample};

const PRELOAD: &str = include_str!("preload.js");
/// How the file above names the ports it tells of, until others are wanted.
const PRELOAD_PORTS: &str = "const PORTS = new Set([6379]);";

/// The file for `node --require` that tells of connects to `ports`.
#[must_use]
pub fn preload(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = format!("const PORTS = new Set([{}]);", ports.join(", "));
    PRELOAD.replace(PRELOAD_PORTS, &ports)
}

pub(super) const MODULES: &[&str] = &["node", "nodejs", "libnode.so*"];

// As in the preload.
const MARK: [u32; 4] = [0x6c_9a01, 0x35_f2e8, 0xd0_4b77, 0x8e_1c5d];
const WHOLE: u32 = 0;
const CUT: u32 = 1;
const TOO_MANY: u32 = 2;
const OTHER_PORT: u32 = 3;
const TEXT_MAX_BYTES: usize = 3_072;
const FRAMES_MAX: usize = 96;

const SMI_BYTES: usize = 8;
const WORD_BYTES: usize = 3;
/// After the mark: four words of time, how it was told, its length.
const HEAD_WORDS: usize = 6;

/// What a process told of one connect.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Frames { frames: Vec<Frame>, is_cut: bool },
    Nothing(&'static str),
}

/// Puts the frames that the process told in the place of Node's own, which say nothing.
pub(super) fn with_caller(native: Stack, sample: &StackSample) -> Stack {
    let is_node = |frame: &Frame| {
        let module = frame.module.as_deref().unwrap_or_default();
        let name = module.rsplit('/').next().unwrap_or_default();
        MODULES.iter().any(|pattern| matches(pattern, name))
    };
    let Some(innermost) = native.frames.iter().position(is_node) else {
        return native;
    };
    match told(&sample.copy) {
        None => native,
        Some(Told::Nothing(why)) => Stack {
            note: Some(format!("no JavaScript frames: {why}")),
            ..native
        },
        Some(Told::Frames { frames, is_cut }) => {
            let mut all = native.frames;
            all.truncate(innermost);
            all.extend(frames);
            let cut = match is_cut {
                true => "; stack ends early: it tells no more than 3 KiB",
                false => "",
            };
            Stack {
                frames: all,
                note: Some(format!("JavaScript frames as told by the process{cut}")),
            }
        }
    }
}

/// The latest that lies in the copy. Those before it are what other calls left in memory that the
/// stack has grown over since; this connect's own is always there, once there is any.
fn told(copy: &[u8]) -> Option<Told> {
    let words: Vec<Option<u32>> = copy.chunks_exact(SMI_BYTES).map(small_integer).collect();
    let mark = MARK.map(Some);
    let found = words.windows(MARK.len() + HEAD_WORDS).enumerate();
    let (at, _) = found
        .filter(|(_, window)| window.starts_with(&mark))
        .filter_map(|(at, window)| Some((at, whole(&window[4..8])?)))
        .max_by(|(_, one), (_, other)| one.cmp(other))?;
    Some(
        decode(&words[at + MARK.len() + 4..]).unwrap_or(Told::Nothing(
            "what the process told of them is damaged, or was not copied",
        )),
    )
}

/// V8 keeps an integer of 32 bits in the upper half of a word; of these 24 are used.
fn small_integer(word: &[u8]) -> Option<u32> {
    let word = u64::from_le_bytes(word.try_into().ok()?);
    let is_told = word & 0xffff_ffff == 0 && word >> 56 == 0;
    is_told.then_some((word >> 32) as u32)
}

fn whole(words: &[Option<u32>]) -> Option<Vec<u32>> {
    words.iter().copied().collect()
}

/// How, length, text, sum.
fn decode(words: &[Option<u32>]) -> Option<Told> {
    let (how, length) = ((*words.first()?)?, (*words.get(1)?)? as usize);
    match how {
        WHOLE | CUT => {}
        TOO_MANY => return Some(Told::Nothing("the process tells 200 in a second")),
        OTHER_PORT => return Some(Told::Nothing("its preload was printed for another --port")),
        _ => return Some(Told::Nothing("the process did not know them")),
    }
    if length > TEXT_MAX_BYTES {
        return None;
    }
    let end = 2 + length.div_ceil(WORD_BYTES);
    let text = whole(words.get(2..end)?)?;
    if (*words.get(end)?)? != sum(&text) {
        return None;
    }
    let bytes: Vec<u8> = text
        .iter()
        .flat_map(|word| word.to_le_bytes().into_iter().take(WORD_BYTES))
        .take(length)
        .collect();
    let frames = frames(&bytes);
    Some(match frames.is_empty() {
        true => Told::Nothing("the process did not know them"),
        false => Told::Frames {
            frames,
            is_cut: how == CUT,
        },
    })
}

fn sum(text: &[u32]) -> u32 {
    let step = |sum: u64, word: &u32| (sum * 31 + u64::from(*word)) % (1 << 24);
    text.iter().fold(0, step) as u32
}

fn frames(text: &[u8]) -> Vec<Frame> {
    let text = String::from_utf8_lossy(text);
    text.lines().filter_map(frame).take(FRAMES_MAX).collect()
}

/// `FUNCTION\tFILE\tLINE`
fn frame(line: &str) -> Option<Frame> {
    let mut fields = line.split('\t');
    let (function, file, line) = (fields.next()?, fields.next()?, fields.next()?);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(Frame {
        function: text(function),
        file: text(file),
        line: line.parse().ok().filter(|line| *line > 0),
        module: None,
        kind: FrameKind::Node,
        inlined: false,
    })
}

/// Any copy of a stack; and as text, for few inputs have the right sum.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = told(bytes);
    assert!(frames(bytes).len() <= FRAMES_MAX);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FrameSample, Registers};
    use super::*;

    fn record(second: u32, how: u32, text: &str) -> Vec<u8> {
        let words: Vec<u32> = text
            .as_bytes()
            .chunks(WORD_BYTES)
            .map(|bytes| {
                let mut word = [0; 4];
                word[..bytes.len()].copy_from_slice(bytes);
                u32::from_le_bytes(word)
            })
            .collect();
        let head = [0, second, 0, 0, how, text.len() as u32];
        let all = MARK.into_iter().chain(head).chain(words.clone());
        let all = all.chain([sum(&words)]);
        all.flat_map(|word| (u64::from(word) << 32).to_le_bytes())
            .collect()
    }

    fn resolved(copy: Vec<u8>) -> Stack {
        let frame = |function: &str, module: &str| Frame {
            function: Some(function.to_owned()),
            file: None,
            line: None,
            module: Some(module.to_owned()),
            kind: FrameKind::Native,
            inlined: false,
        };
        let native = Stack {
            frames: vec![
                frame("connect", "/lib/libc.so.6"),
                frame("uv__tcp_connect", "/usr/bin/node"),
                frame("main", "/usr/bin/node"),
            ],
            note: None,
        };
        let sample = StackSample {
            registers: Registers::default(),
            copy: copy.into(),
            bounded: false,
            interpreter: FrameSample::default(),
        };
        with_caller(native, &sample)
    }

    fn functions(stack: &Stack) -> Vec<&str> {
        let frames = stack.frames.iter();
        frames.filter_map(|f| f.function.as_deref()).collect()
    }

    #[test]
    fn what_was_told_stands_in_the_place_of_nodes_own_frames() {
        let mut copy = vec![7; 16];
        copy.extend(record(
            5,
            WHOLE,
            "getClient\t/srv/a.js\t7\nmain\t/srv/ä.js\t22\n",
        ));
        copy.extend([7; 16]);
        let stack = resolved(copy);
        assert_eq!(functions(&stack), ["connect", "getClient", "main"]);
        assert_eq!(stack.frames[2].file.as_deref(), Some("/srv/ä.js"));
        assert_eq!(stack.frames[2].line, Some(22));
        assert_eq!(stack.frames[2].kind, FrameKind::Node);
        let note = stack.note.expect("a label");
        assert!(note.contains("told by the process"), "{note}");
    }

    #[test]
    fn what_earlier_calls_left_on_the_stack_is_not_this_connects() {
        let old = record(5, WHOLE, "old\t/srv/a.js\t1\n");
        let new = record(6, WHOLE, "new\t/srv/a.js\t2\n");
        for copy in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
            assert_eq!(functions(&resolved(copy.concat())), ["connect", "new"]);
        }
        // Nor where this connect's own was not copied whole.
        let cut = [old, new[..new.len() - 8].to_vec()].concat();
        let note = resolved(cut).note.expect("a note");
        assert!(note.contains("no JavaScript frames"), "{note}");
    }

    #[test]
    fn a_stack_that_was_not_told_says_why() {
        let note = |how| resolved(record(1, how, "")).note.expect("a note");
        assert!(note(TOO_MANY).contains("200 in a second"));
        assert!(note(OTHER_PORT).contains("another --port"));
        assert!(note(WHOLE).contains("did not know"));
        let cut = resolved(record(1, CUT, "a\tb\t1\n")).note.expect("a note");
        assert!(cut.contains("ends early"), "{cut}");
    }

    #[test]
    fn the_preload_tells_of_the_ports_it_is_asked_for() {
        assert!(PRELOAD.contains(PRELOAD_PORTS));
        assert!(preload(&[6380, 7000]).contains("const PORTS = new Set([6380, 7000]);"));
    }

    proptest! {
        #[test]
        fn any_record_has_an_answer(how in 0_u32..5, text: String, damage: usize, by: u8) {
            let mut copy = record(1, how, &text);
            let at = damage % copy.len();
            copy[at] ^= by;
            let _ = told(&copy);
        }
    }
}
