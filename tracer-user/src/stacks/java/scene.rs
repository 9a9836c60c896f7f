//! A JVM in memory as JDK 17 has it: an interpreter, a stub, and code compiled from two methods.

use super::super::fuzz::{MEMORY, with_memory};
use super::super::looked::Looked;
use super::machine::{Machine, find};
use super::tables::Symbols;

const BYTES: usize = 0x8000;
/// Where what is, from [`MEMORY`] on.
const REGISTERS: u64 = 0x80;
pub(super) const VERSION: u64 = 0x100;
const HEAPS: u64 = 0x108;
const ARRAY: u64 = 0x110;
const HEAP_POINTERS: u64 = 0x120;
const HEAP: u64 = 0x200;
pub(super) const SEGMENTS: u64 = 0x400;
const CODE: u64 = 0x1000;
const CODE_END: u64 = 0x3000;
const SEGMENT_SHIFT: u64 = 7;
pub(super) const INTERPRETER: u64 = 0x1000;
pub(super) const COMPILED: u64 = 0x1400;
pub(super) const STUB: u64 = 0x2400;
const HEADER_BYTES: u64 = 16;
pub(super) const METHOD: u64 = 0x3000;
pub(super) const INLINED: u64 = 0x3080;
pub(super) const CONSTANT: u64 = 0x3100;
pub(super) const INLINED_CONSTANT: u64 = 0x3200;
pub(super) const POOL: u64 = 0x3300;
pub(super) const CLASS: u64 = 0x3400;
pub(super) const CACHE: u64 = 0x3600;
const FIELDS: u64 = 0x4000;
const TYPES: u64 = 0x5000;
const CONSTANTS: u64 = 0x5400;
const TEXTS: u64 = 0x5800;
pub(super) const STACK: u64 = 0x7000;

/// Of compiled code, from its blob on.
pub(super) const COMPILED_CODE: u64 = 0x180;
const COMPILED_END: u64 = 0x280;
const METADATA: u64 = 0x280;
const SCOPES: u64 = 0x290;
const PLACES: u64 = 0x2a0;
const PLACES_END: u64 = 0x2d0;
/// Return addresses, from the code on: of the method itself, of what was inlined into it, and of
/// the frame that goes on interpreted.
pub(super) const OUTER: u64 = 0x20;
pub(super) const INNER: u64 = 0x40;
pub(super) const DEOPTIMIZED: u64 = 0xf0;
const ORIGINAL_PC: u64 = 8;
pub(super) const FRAME_WORDS: u64 = 6;
/// In the constant pool: what each of the methods calls.
pub(super) const CALLED: u64 = 5;
const INVOKE_STATIC: u8 = 0xb8;

const OFFSETS: &[(&str, &str, u64)] = &[
    ("CodeBlob", "_name", 96),
    ("CodeBlob", "_frame_size", 28),
    ("CodeBlob", "_code_begin", 32),
    ("CodeBlob", "_code_end", 40),
    ("CodeHeap", "_memory", 8),
    ("CodeHeap", "_segmap", 120),
    ("CodeHeap", "_log2_segment_size", 256),
    ("CompiledMethod", "_method", 112),
    ("CompiledMethod", "_scopes_data_begin", 120),
    ("CompiledMethod", "_deopt_handler_begin", 128),
    ("ConstMethod", "_constants", 8),
    ("ConstMethod", "_constMethod_size", 24),
    ("ConstMethod", "_flags", 28),
    ("ConstMethod", "_code_size", 32),
    ("ConstMethod", "_name_index", 34),
    ("ConstantPool", "_pool_holder", 24),
    ("ConstantPool", "_cache", 16),
    ("ConstantPool", "_length", 60),
    ("ConstantPool", "_source_file_name_index", 54),
    ("ConstantPoolCacheEntry", "_indices", 0),
    ("GrowableArray<int>", "_data", 8),
    ("GrowableArrayBase", "_len", 0),
    ("HeapBlock", "_header", 0),
    ("HeapBlock::Header", "_length", 0),
    ("HeapBlock::Header", "_used", 8),
    ("InstanceKlass", "_constants", 232),
    ("Klass", "_name", 24),
    ("Method", "_constMethod", 8),
    ("PcDesc", "_pc_offset", 0),
    ("PcDesc", "_scope_decode_offset", 4),
    ("Symbol", "_length", 4),
    ("Symbol", "_body", 6),
    ("Thread", "_osthread", 40),
    ("VirtualSpace", "_low", 16),
    ("VirtualSpace", "_high_boundary", 8),
    ("nmethod", "_state", 315),
    ("nmethod", "_compile_id", 304),
    ("nmethod", "_orig_pc_offset", 300),
    ("nmethod", "_metadata_offset", 260),
    ("nmethod", "_scopes_pcs_offset", 268),
    ("nmethod", "_dependencies_offset", 272),
];
const SIZES: &[(&str, u64)] = &[
    ("CodeBlob", 104),
    ("ConstMethod", 48),
    ("ConstantPool", 72),
    ("ConstantPoolCache", 40),
    ("ConstantPoolCacheEntry", 32),
    ("HeapBlock", 16),
    ("PcDesc", 16),
    ("nmethod", 352),
];
const INT_CONSTANTS: &[(&str, i32)] = &[
    ("frame::interpreter_frame_last_sp_offset", -2),
    ("ConstMethod::_has_linenumber_table", 1),
];

/// The memory, to be changed before it is read.
pub(super) struct Scene {
    pub(super) bytes: Vec<u8>,
    texts: usize,
}

impl Scene {
    pub(super) fn new() -> Self {
        let mut scene = Self {
            bytes: vec![0; BYTES],
            texts: TEXTS as usize,
        };
        scene.describe(&[]);
        scene.word(VERSION, 17);
        scene.heap();
        scene.code();
        scene.methods();
        scene.stack();
        scene
    }

    /// One whose tables lack these fields.
    pub(super) fn without(fields: &[(&str, &str)]) -> Self {
        let mut scene = Self::new();
        scene.describe(fields);
        scene
    }

    pub(super) fn word(&mut self, at: u64, word: u64) {
        let at = at as usize;
        self.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// An address in the memory.
    pub(super) fn pointer(&mut self, at: u64, to: u64) {
        self.word(at, MEMORY + to);
    }

    pub(super) fn int(&mut self, at: u64, int: i32) {
        self.put(at, &int.to_le_bytes());
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = at as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What is found in it.
    pub(super) fn find(&self) -> Looked<Machine> {
        let mut found = Looked::Nothing;
        with_memory(&self.bytes, |_| {
            found = find(std::process::id(), &symbols(), 0)
        });
        found
    }

    /// Has the machine of this memory read.
    pub(super) fn read<Answer>(&self, read: impl FnOnce(&Machine) -> Answer) -> Answer {
        let mut answer = None;
        with_memory(&self.bytes, |_| {
            let Looked::Found(machine) = find(std::process::id(), &symbols(), 0) else {
                panic!("the machine was not found");
            };
            answer = Some(read(&machine));
        });
        answer.expect("it was read")
    }

    pub(super) fn rename(&mut self, block: u64, name: &str) {
        let name = self.text(name);
        self.word(block + HEADER_BYTES + 96, name);
    }

    fn text(&mut self, text: &str) -> u64 {
        let at = self.texts;
        self.bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        self.texts += text.len() + 1;
        MEMORY + at as u64
    }

    /// An entry of the pool: a `Symbol`.
    fn symbol(&mut self, text: &str) -> u64 {
        self.texts = self.texts.next_multiple_of(8);
        let at = self.texts as u64;
        self.put(at + 4, &(text.len() as u16).to_le_bytes());
        self.put(at + 6, text.as_bytes());
        self.texts += 6 + text.len();
        MEMORY + at
    }

    fn describe(&mut self, lacking: &[(&str, &str)]) {
        let variables = [
            MEMORY + FIELDS,
            48,
            0,
            8,
            24,
            32,
            40,
            MEMORY + TYPES,
            40,
            0,
            32,
            MEMORY + CONSTANTS,
            16,
            0,
            8,
        ];
        for (index, variable) in variables.into_iter().enumerate() {
            self.word(index as u64 * 8, variable);
        }
        let addresses = [
            ("Abstract_VM_Version", "_vm_major_version", VERSION),
            ("CodeCache", "_heaps", HEAPS),
        ];
        let mut at = FIELDS;
        let offsets = OFFSETS
            .iter()
            .map(|(of, field, offset)| (*of, *field, Ok(*offset)));
        let addresses = addresses
            .iter()
            .map(|(of, field, to)| (*of, *field, Err(*to)));
        for (of, field, place) in offsets.chain(addresses) {
            if lacking.contains(&(of, field)) {
                continue;
            }
            let names = [self.text(of), self.text(field)];
            self.word(at, names[0]);
            self.word(at + 8, names[1]);
            match place {
                Ok(offset) => {
                    self.int(at + 24, 0);
                    self.word(at + 32, offset);
                }
                Err(to) => {
                    self.int(at + 24, 1);
                    self.pointer(at + 40, to);
                }
            }
            at += 48;
        }
        self.word(at, 0);
        for (index, (of, size)) in (0..).zip(SIZES) {
            let name = self.text(of);
            self.word(TYPES + index * 40, name);
            self.word(TYPES + index * 40 + 32, *size);
        }
        for (index, (name, value)) in (0..).zip(INT_CONSTANTS) {
            let name = self.text(name);
            self.word(CONSTANTS + index * 16, name);
            self.int(CONSTANTS + index * 16 + 8, *value);
        }
    }

    fn heap(&mut self) {
        self.pointer(HEAPS, ARRAY);
        self.int(ARRAY, 1);
        self.pointer(ARRAY + 8, HEAP_POINTERS);
        self.pointer(HEAP_POINTERS, HEAP);
        self.pointer(HEAP + 8 + 16, CODE);
        self.pointer(HEAP + 8 + 8, CODE_END);
        self.pointer(HEAP + 120 + 16, SEGMENTS);
        self.pointer(HEAP + 120 + 8, SEGMENTS + 0x40);
        self.int(HEAP + 256, SEGMENT_SHIFT as i32);
        self.put(SEGMENTS, &[0xff; 0x40]);
    }

    fn block(&mut self, at: u64, end: u64, name: &str, code: std::ops::Range<u64>, words: u64) {
        let segments = (end - at) >> SEGMENT_SHIFT;
        let first = (at - CODE) >> SEGMENT_SHIFT;
        // The farthest leads back in two steps.
        for segment in 0..segments {
            let back = if segment > 4 { 3 } else { segment };
            self.put(SEGMENTS + first + segment, &[back as u8]);
        }
        self.word(at, segments);
        self.word(at + 8, 1);
        let blob = at + HEADER_BYTES;
        let name = self.text(name);
        self.word(blob + 96, name);
        self.int(blob + 28, words as i32);
        self.pointer(blob + 32, blob + code.start);
        self.pointer(blob + 40, blob + code.end);
    }

    fn code(&mut self) {
        self.block(INTERPRETER, COMPILED, "Interpreter", 0x80..0x300, 0);
        let code = COMPILED_CODE..COMPILED_END;
        self.block(COMPILED, STUB, "nmethod", code, FRAME_WORDS);
        self.block(STUB, STUB + 0x200, "StubRoutines (1)", 0x80..0x100, 0);
        let blob = COMPILED + HEADER_BYTES;
        self.pointer(blob + 112, METHOD);
        self.pointer(blob + 120, blob + SCOPES);
        self.pointer(blob + 128, blob + COMPILED_CODE + DEOPTIMIZED);
        self.int(blob + 260, METADATA as i32);
        self.int(blob + 268, PLACES as i32);
        self.int(blob + 272, PLACES_END as i32);
        self.int(blob + 300, ORIGINAL_PC as i32);
        self.int(blob + 304, 42);
        self.pointer(blob + METADATA, METHOD);
        self.pointer(blob + METADATA + 8, INLINED);
        // Outer: bytecode 4 of the method. Inner: bytecode 0 of what is inlined there.
        self.put(blob + SCOPES, &[0, 0, 1, 5, 1, 2, 1]);
        let places = [(u64::MAX, 0), (OUTER, 1), (INNER, 4)];
        for (index, (pc, scope)) in (0..).zip(places) {
            self.int(blob + PLACES + index * 16, pc as i32);
            self.int(blob + PLACES + index * 16 + 4, scope);
        }
    }

    fn methods(&mut self) {
        let names = ["", "shop/Orders", "Orders.java", "handleOrder", "getClient"];
        for (index, name) in (0..).zip(names).skip(1) {
            let symbol = self.symbol(name);
            self.word(POOL + 72 + index * 8, symbol);
        }
        // A method, and its name and type; and the cache's entry for it.
        self.word(POOL + 72 + CALLED * 8, (CALLED + 1) << 16 | 1);
        self.word(POOL + 72 + (CALLED + 1) * 8, 3);
        self.pointer(POOL + 16, CACHE);
        self.word(CACHE + 40, CALLED);
        self.pointer(POOL + 24, CLASS);
        self.int(POOL + 60, CALLED as i32 + 2);
        self.put(POOL + 54, &[2]);
        self.pointer(CLASS + 232, POOL);
        let class_name = self.symbol(names[1]);
        self.word(CLASS + 24, class_name);
        // From its first bytecode on line 10, from the fourth on line 12.
        let lines = [0xff, 0, 20, 4 << 3 | 2, 0];
        for (method, constant, name) in [(METHOD, CONSTANT, 3), (INLINED, INLINED_CONSTANT, 4)] {
            self.pointer(method + 8, constant);
            self.pointer(constant + 8, POOL);
            self.int(constant + 24, 8);
            self.put(constant + 28, &[1]);
            self.put(constant + 32, &[8, 0, name]);
            self.put(
                constant + 48,
                &[INVOKE_STATIC, 0, 0, 0, INVOKE_STATIC, 0, 0, 0],
            );
            self.put(constant + 48 + 8, &lines);
        }
    }

    /// An interpreted frame, called by compiled code, called by a stub.
    fn stack(&mut self) {
        let [interpreter, compiled, stub] =
            [INTERPRETER, COMPILED, STUB].map(|it| it + HEADER_BYTES);
        let fp = STACK + 0x80;
        self.pointer(REGISTERS, interpreter + 0x100);
        self.pointer(REGISTERS + 8, STACK);
        self.pointer(REGISTERS + 16, fp);
        self.pointer(fp - 64, CONSTANT + 48 + 5);
        self.pointer(fp - 24, METHOD);
        let sender = fp + 0x18;
        self.pointer(fp - 8, sender);
        self.pointer(fp, fp + 0x80);
        self.pointer(fp + 8, compiled + COMPILED_CODE + INNER);
        let end = sender + FRAME_WORDS * 8;
        self.pointer(sender + ORIGINAL_PC, compiled + COMPILED_CODE + OUTER);
        self.pointer(end - 16, end + 0x20);
        self.pointer(end - 8, stub + 0x90);
        self.pointer(end + 0x20, fp + 0x200);
        self.word(end + 0x28, 0x1234);
    }
}

/// Where the variables are that say where the tables are.
pub(super) fn symbols() -> Symbols {
    Symbols(std::array::from_fn(|index| MEMORY + index as u64 * 8))
}

/// In the blob of a block.
pub(super) fn blob(block: u64) -> u64 {
    MEMORY + block + HEADER_BYTES
}

/// Of the innermost frame.
pub(super) fn registers() -> super::Returned {
    super::Returned {
        pc: blob(INTERPRETER) + 0x100,
        sp: MEMORY + STACK,
        fp: MEMORY + STACK + 0x80,
    }
}
