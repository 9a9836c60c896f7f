//! A JVM in memory as HotSpot has it, and memory as no JVM has it.

use proptest::prelude::*;

use super::super::fuzz::MEMORY;
use super::super::looked::Looked;
use super::super::memory::Memory;
use super::super::{Frame, FrameKind};
use super::activation::{Returned, Step, step};
use super::machine::Machine;
use super::method::MethodReader;
use super::scene::{self, Scene};
use super::walk_memory::{Budget, WalkMemory};
use super::walker::{Walked, Walker};

/// What each activation ran, and how the walk ended.
fn walk(machine: &Machine) -> (Vec<Vec<Frame>>, Walked) {
    let mut methods = MethodReader::default();
    walk_with(machine, &mut methods)
}

fn walk_with(machine: &Machine, methods: &mut MethodReader) -> (Vec<Vec<Frame>>, Walked) {
    walk_by(Walker::new(machine, methods))
}

fn walk_by(mut walker: Walker<'_>) -> (Vec<Vec<Frame>>, Walked) {
    let memory = Memory::of(std::process::id());
    let mut at = scene::registers();
    let mut walked = Vec::new();
    loop {
        match walker.step(at, |address| memory.u64_at(address)) {
            Walked::Frames(frames, caller) => {
                walked.push(frames);
                at = caller;
            }
            end => return (walked, end),
        }
    }
}

/// So many are walked before one whose code is gone.
fn ensure_gone(scene: &Scene, after: usize) {
    let (frames, end) = scene.read(walk);
    let callee_too = after > 0;
    assert_eq!((frames.len(), end), (after, Walked::Gone { callee_too }));
}

fn java(function: &str, line: Option<u32>, inlined: bool) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        file: Some("Orders.java".to_owned()),
        line,
        module: None,
        kind: FrameKind::Java,
        inlined,
    }
}

fn refusal(scene: &Scene) -> String {
    match scene.find() {
        Looked::Refused(cause) => cause,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn frames_have_method_file_and_line_and_inlined_ones_their_own() {
    let (frames, _) = Scene::new().read(walk);
    let handle_order = "shop.Orders.handleOrder";
    let stub = Frame {
        function: Some("StubRoutines (1)".to_owned()),
        file: None,
        kind: FrameKind::Jit,
        ..java("", None, false)
    };
    let expected = [
        vec![java(handle_order, Some(12), false)],
        vec![
            java("shop.Orders.getClient", Some(10), true),
            java(handle_order, Some(12), false),
        ],
        vec![stub],
    ];
    assert_eq!(frames, expected);
}

#[test]
fn a_frame_that_goes_on_interpreted_is_where_it_was() {
    let mut scene = Scene::new();
    let deoptimized = scene::COMPILED + 16 + scene::COMPILED_CODE + scene::DEOPTIMIZED;
    scene.pointer(scene::STACK + 0x88, deoptimized);
    let (frames, _) = scene.read(walk);
    let outer = vec![java("shop.Orders.handleOrder", Some(12), false)];
    assert_eq!(frames[1], outer);
}

#[test]
fn callers_are_found_without_frame_pointers() {
    let scene = Scene::new();
    let memory = Memory::of(std::process::id());
    scene.read(|machine| {
        let (layout, heaps) = (&machine.layout, &machine.heaps);
        let budget = Budget::of(1 << 20);
        let walked = WalkMemory::new(memory, &budget);
        let step = |at| match step(walked, layout, heaps, at, &mut |at| memory.u64_at(at)) {
            Some(Step::Caller(_, caller)) => Some(caller),
            _ => None,
        };
        let compiled = step(scene::registers()).expect("a caller");
        // Where the callee says that its caller's stack ended.
        assert_eq!(compiled.sp, MEMORY + scene::STACK + 0x98);
        let wrong = Returned { fp: 8, ..compiled };
        let stub = step(wrong).expect("a caller");
        assert_eq!(stub.sp, compiled.sp + scene::FRAME_WORDS * 8);
        assert_eq!(stub.pc, scene::blob(scene::STUB) + 0x90);
        assert_eq!(step(Returned { fp: 8, ..stub }), None);
    });
}

#[test]
fn frames_of_a_virtual_thread_that_are_in_the_heap_are_told() {
    let mut scene = Scene::new();
    scene.rename(scene::STUB, "StubRoutines (continuationstubs)");
    let (frames, end) = scene.read(walk);
    assert_eq!((frames.len(), end), (2, Walked::InHeap));
}

#[test]
fn a_stack_that_was_not_copied_so_far_is_told() {
    let end = MEMORY + scene::STACK + 0x88;
    Scene::new().read(|machine| {
        let mut methods = MethodReader::default();
        let mut walker = Walker::new(machine, &mut methods);
        let memory = Memory::of(std::process::id());
        let copied = |at| memory.u64_at(at).filter(|_| at < end);
        assert_eq!(walker.step(scene::registers(), copied), Walked::Unread(end));
    });
}

#[test]
fn code_that_was_freed_ends_the_walk() {
    let mut scene = Scene::new();
    scene.word(scene::COMPILED + 8, 0);
    ensure_gone(&scene, 1);
    let mut scene = Scene::new();
    scene.put(scene::SEGMENTS + 10, &[0xff; 4]);
    ensure_gone(&scene, 1);
    // Segments that lead out of the heap.
    let mut scene = Scene::new();
    scene.put(scene::SEGMENTS, &[0xfe; 0x40]);
    ensure_gone(&scene, 0);
}

#[test]
fn code_that_is_no_longer_valid_ends_the_walk() {
    for state in [3, 4, 0xff] {
        let mut scene = Scene::new();
        scene.put(scene::COMPILED + 16 + 315, &[state]);
        ensure_gone(&scene, 1);
    }
    // A place that no call returns to.
    let mut scene = Scene::new();
    let place = scene::COMPILED + 16 + scene::COMPILED_CODE + scene::INNER + 1;
    scene.pointer(scene::STACK + 0x88, place);
    ensure_gone(&scene, 1);
    // What is outermost is not what was compiled.
    let mut scene = Scene::new();
    scene.pointer(scene::COMPILED + 16 + 112, scene::INLINED);
    ensure_gone(&scene, 1);
}

#[test]
fn code_that_calls_another_method_ends_the_walk() {
    // By its name, by a bytecode that calls none, by a cache that is none.
    let mut scene = Scene::new();
    scene.word(scene::POOL + 72 + (scene::CALLED + 1) * 8, 4);
    ensure_gone(&scene, 1);
    let bytecode = scene::INLINED_CONSTANT + 48;
    let mut scene = Scene::new();
    scene.put(bytecode, &[0xbb]);
    ensure_gone(&scene, 1);
    let mut scene = Scene::new();
    scene.word(scene::CACHE + 40, 0xffff);
    ensure_gone(&scene, 1);
    // What something else has chosen may have any name.
    let mut scene = Scene::new();
    scene.put(bytecode, &[0xba]);
    assert_eq!(scene.read(walk).0.len(), 3);
}

#[test]
fn what_is_no_method_ends_the_walk() {
    let changes: [fn(&mut Scene); 5] = [
        // Class and pool do not point to each other.
        |scene| scene.pointer(scene::CLASS + 232, scene::POOL + 8),
        // Its name is not in the pool.
        |scene| scene.put(scene::CONSTANT + 34, &[9]),
        |scene| scene.put(scene::CONSTANT + 34, &[0]),
        |scene| scene.word(scene::METHOD + 8, 12),
        // The frame's bytecode is another method's.
        |scene| scene.pointer(scene::STACK + 0x80 - 64, scene::CONSTANT + 48 + 8),
    ];
    for change in changes {
        let mut scene = Scene::new();
        change(&mut scene);
        ensure_gone(&scene, 0);
    }
}

#[test]
fn a_method_without_line_table_or_file_has_no_line() {
    let mut scene = Scene::new();
    scene.put(scene::CONSTANT + 28, &[0]);
    let (frames, _) = scene.read(walk);
    assert_eq!(frames[0], [java("shop.Orders.handleOrder", None, false)]);
    let mut scene = Scene::new();
    scene.put(scene::POOL + 54, &[0]);
    let (frames, _) = scene.read(walk);
    assert_eq!((&frames[0][0].file, frames[0][0].line), (&None, None));
}

#[test]
fn a_method_that_took_the_place_of_another_is_read_anew() {
    let mut scene = Scene::new();
    let mut methods = MethodReader::default();
    let mut name = |scene: &Scene| {
        let (frames, _) = scene.read(|machine| walk_with(machine, &mut methods));
        frames[0][0].function.clone()
    };
    assert_eq!(name(&scene).as_deref(), Some("shop.Orders.handleOrder"));
    scene.put(scene::CONSTANT + 34, &[4]);
    assert_eq!(name(&scene).as_deref(), Some("shop.Orders.getClient"));
}

#[test]
fn a_method_whose_class_was_loaded_anew_has_its_new_lines() {
    let mut scene = Scene::new();
    let mut methods = MethodReader::default();
    let mut line = |scene: &Scene| {
        let (frames, _) = scene.read(|machine| walk_with(machine, &mut methods));
        frames[0][0].line
    };
    assert_eq!(line(&scene), Some(12));
    // The same bytes at the same place, but for the table: from the fourth bytecode on line 13.
    scene.put(scene::CONSTANT + 48 + 8 + 3, &[4 << 3 | 3]);
    assert_eq!(line(&scene), Some(13));
}

#[test]
fn what_is_remembered_of_methods_is_counted_once() {
    let mut methods = MethodReader::default();
    let scene = Scene::new();
    assert_eq!(methods.held_bytes(), 0);
    scene.read(|machine| walk_with(machine, &mut methods));
    let held_bytes = methods.held_bytes();
    // Two methods, each with its names.
    assert!((400..2_000).contains(&held_bytes), "{held_bytes}");
    scene.read(|machine| walk_with(machine, &mut methods));
    assert_eq!(methods.held_bytes(), held_bytes);
}

#[test]
fn a_walk_that_read_enough_ends_there_and_says_so() {
    let scene = Scene::new();
    let (whole, end) = scene.read(walk);
    let mut frames_before = 0;
    for max_bytes in (0..64 << 10).step_by(64) {
        let (frames, end_of) = scene.read(|machine| {
            let mut methods = MethodReader::default();
            walk_by(Walker::bounded(machine, &mut methods, max_bytes))
        });
        let is_whole = frames.len() == whole.len() && end_of == end;
        assert!(is_whole || end_of == Walked::Bounded, "{end_of:?}");
        // What is named is what would have been named.
        assert_eq!(frames, whole[..frames.len()]);
        assert!(frames.len() >= frames_before);
        frames_before = frames.len();
    }
    assert_eq!(frames_before, whole.len());
}

#[test]
fn what_a_library_does_not_tell_is_said() {
    let scene = Scene::without(&[("nmethod", "_state")]);
    assert_eq!(refusal(&scene), "libjvm.so does not tell nmethod::_state");
    let mut scene = Scene::new();
    scene.word(scene::VERSION, 99);
    assert_eq!(refusal(&scene), "JDK 99 is not supported");
    scene.word(scene::VERSION, 0);
    assert_eq!(scene.find().map(|_| ()), Looked::NotYet);
    let mut scene = Scene::new();
    scene.word(0, 0);
    assert_eq!(refusal(&scene), "libjvm.so does not describe itself");
}

proptest! {
    #[test]
    fn any_memory_has_an_answer(
        changes in prop::collection::vec((0_u64..0xfff, any::<u64>(), any::<bool>()), 0..24),
    ) {
        let mut scene = Scene::new();
        for (at, word, is_pointer) in changes {
            let word = if is_pointer { MEMORY + word % 0x8000 } else { word };
            scene.word(at * 8, word);
        }
        super::fuzz::memory(&scene.bytes);
    }
}
