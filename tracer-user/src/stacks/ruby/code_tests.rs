//! Code in memory as Ruby has it, and in memory as no Ruby has it.

use proptest::prelude::*;

use super::*;

fn runtime(minor: u32) -> Runtime {
    let version = [3, minor, 0].map(u32::to_le_bytes).concat();
    let layout = Layout::of(&version, "libruby.so").expect("it is known");
    Runtime { layout }
}

fn name(runtime: &Runtime, frames: &[(u64, u64)]) -> Vec<Frame> {
    CodeReader::default().name(runtime, 1, std::process::id(), frames)
}

fn address<T>(of: &[T]) -> u64 {
    of.as_ptr() as u64
}

/// A string that is not embedded.
fn string(text: &str) -> [u64; 5] {
    [0x2005, 0, text.len() as u64, address(text.as_bytes()), 0]
}

/// Code of 3.1 with one line, for its address.
struct Code {
    code: Vec<u64>,
    body: Vec<u64>,
    _texts: Vec<Vec<u64>>,
    _line: Vec<u32>,
}

impl Code {
    fn new(label: &str, paths: &[&str]) -> Self {
        let mut texts: Vec<Vec<u64>> = [label]
            .iter()
            .chain(paths)
            .map(|text| string(text).to_vec())
            .collect();
        let path = match &texts[..] {
            [_, told, real] => {
                let pair = vec![0x2007, 0, address(told), address(real), 0];
                texts.push(pair);
                address(&texts[3])
            }
            _ => address(&texts[1]),
        };
        let line = vec![9_u32, 0, 0];
        let mut body = vec![0_u64; 24];
        body[0] = 20 << 32;
        body[1] = 0x10_0000;
        body[8] = path;
        body[10] = address(&texts[0]);
        body[15] = address(&line);
        body[17] = 1;
        let code = vec![0x701a, 0, address(&body)];
        Self {
            code,
            body,
            _texts: texts,
            _line: line,
        }
    }

    fn frame_at(&self, pc: u64) -> Vec<Frame> {
        name(&runtime(1), &[(address(&self.code), pc)])
    }
}

#[test]
fn code_has_method_file_and_line() {
    let told = Code::new(
        "get_client",
        &["/srv/current/orders.rb", "/srv/7/orders.rb"],
    );
    let frames = told.frame_at(0x10_0008);
    assert_eq!(frames[0].function.as_deref(), Some("get_client"));
    assert_eq!(frames[0].file.as_deref(), Some("/srv/current/orders.rb"));
    assert_eq!(frames[0].line, Some(9));
    let relative = Code::new("main", &["orders.rb", "/srv/orders.rb"]);
    let file = relative.frame_at(0x10_0008)[0].file.clone();
    assert_eq!(file.as_deref(), Some("/srv/orders.rb"));
    let evaluated = Code::new("main", &["(eval)"]);
    let file = evaluated.frame_at(0x10_0008)[0].file.clone();
    assert_eq!(file.as_deref(), Some("(eval)"));
}

#[test]
fn an_instruction_of_other_code_has_no_line() {
    let code = Code::new("main", &["/srv/orders.rb"]);
    for pc in [8, 0x10_0009, 0x10_0000 + 21 * 8, u64::MAX] {
        assert_eq!(code.frame_at(pc)[0].line, None, "{pc:#x}");
    }
}

#[test]
fn frames_that_run_no_instruction_are_left_out() {
    let code = Code::new("main", &["/srv/orders.rb"]);
    assert_eq!(code.frame_at(0), []);
    assert_eq!(code.frame_at(0x10_0000), []);
}

#[test]
fn what_is_no_code_has_no_name() {
    let mut code = Code::new("main", &["/srv/orders.rb"]);
    code.body[10] = 0x14;
    assert_eq!(
        code.frame_at(0x10_0008),
        [Frame::unnamed(FrameKind::Ruby, None)]
    );
    code.code[0] = 0x401a;
    assert_eq!(
        code.frame_at(0x10_0008),
        [Frame::unnamed(FrameKind::Ruby, None)]
    );
    let frames = name(&runtime(1), &[(8, 8), (!7, 8), (3, 8)]);
    assert_eq!(frames, vec![Frame::unnamed(FrameKind::Ruby, None); 3]);
}

#[test]
fn tables_larger_than_any_leave_the_names() {
    let mut code = Code::new("main", &["/srv/orders.rb"]);
    code.body[17] = u64::MAX;
    code.body[18] = address(&code.code);
    let frames = code.frame_at(0x10_0008);
    assert_eq!(frames[0].function.as_deref(), Some("main"));
    assert_eq!(frames[0].line, None);
}

#[test]
fn code_that_took_the_place_of_other_code_is_read_anew() {
    let mut code = Code::new("before", &["/srv/orders.rb"]);
    let other = Code::new("after", &["/srv/orders.rb"]);
    let mut reader = CodeReader::default();
    let mut name = |code: &Code| {
        let frames = [(address(&code.code), 0x10_0008)];
        let named = reader.name(&runtime(1), 1, std::process::id(), &frames);
        named[0].function.clone()
    };
    assert_eq!(name(&code).as_deref(), Some("before"));
    code.body[10] = other.body[10];
    assert_eq!(name(&code).as_deref(), Some("after"));
}

proptest! {
    #[test]
    fn any_memory_has_an_answer(
        words in prop::collection::vec(any::<u64>(), 64),
        links in prop::collection::vec((0_usize..64, 0_u64..64), 0..40),
        minor in 0_u32..5,
    ) {
        let mut words = words;
        let base = address(&words);
        for (at, to) in links {
            words[at] = base + to * 8;
        }
        words[0] = words[0] & !0xf01f | 0x701a;
        let frames: Vec<(u64, u64)> = words[..8].iter().map(|pc| (base, *pc)).collect();
        prop_assert!(name(&runtime(minor), &frames).len() <= 8);
    }
}
