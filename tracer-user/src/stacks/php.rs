//! PHP 8: found in a process by its executor's globals, its frames named from their functions.
//!
//! No version says where a function keeps its file: the place is recognised by what stands around
//! it, and a function that does not look like one has no name.

use std::fs::File;
use std::path::Path;

use super::elf::{Elf, ElfSource, u32_at, u64_at};
use super::interpreters::{Caller, FrameLayout, Root};
use super::known_files::KnownFiles;
use super::looked::Looked;
use super::memory::Memory;
use super::modules::{Mapping, open_mapped};
use super::symbol_table::SymbolTable;
use super::{Frame, FrameKind};

const TABLE_MAX_BYTES: u64 = 16 << 20;
const NAME_MAX_BYTES: u64 = 1_024;

/// `zend_executor_globals`, Zend/zend_globals.h: zend_constants, vm_stack_top, vm_stack_end, vm_stack,
/// vm_stack_page_size and current_execute_data stand in a row.
const CONSTANTS: u64 = 448;
const CURRENT_FRAME: u64 = 488;
/// ZEND_VM_STACK_PAGE_SIZE, in bytes.
const VM_STACK_PAGE_BYTES: u64 = 256 << 10;

/// `zend_array`, Zend/zend_types.h: reference count, mask, elements' address, used, elements, size,
/// and the next free number, which is the least there is where all keys are names.
const TABLE_BYTES: usize = 48;

/// `zend_execute_data`: the same since 7.0.
const FRAME_OPLINE: u16 = 0;
const FRAME_FUNCTION: u16 = 24;
const FRAME_PREVIOUS: u16 = 48;

/// `zend_function`: type, name and class begin each kind of function.
const FUNCTION_BYTES: usize = 192;
const INTERNAL_FUNCTION: u8 = 1;
const USER_FUNCTION: u8 = 2;
const EVAL_CODE: u8 = 4;
const FUNCTION_NAME: usize = 8;
const FUNCTION_CLASS: usize = 16;
const CLASS_NAME: u64 = 8;
/// Where `zend_op_array` may keep its file; its first and last line follow, its instructions
/// stand eight words before. 8.2: 152.
const FILE_PLACES: [usize; 4] = [144, 152, 160, 168];
const INSTRUCTIONS_BEFORE_FILE: usize = 64;
const INSTRUCTION_BYTES: u64 = 32;
const INSTRUCTION_LINE: u64 = 24;

/// `zend_string`: reference count, type, hash, length, text.
const STRING_HEAD_BYTES: usize = 24;
const STRING_TYPE: u32 = 6;

/// Remembers where the files it has seen keep `executor_globals`.
#[derive(Default)]
pub(super) struct Discovery {
    files: KnownFiles<(Elf, u64)>,
}

impl Discovery {
    /// Whether a file of this name may be PHP: `php8.2`, `php-fpm8.2`, `libphp.so`, `php`.
    pub(super) fn may_be(name: &[u8]) -> bool {
        name.starts_with(b"php") || name.starts_with(b"libphp")
    }

    /// Looks through what a process maps of files that may be an interpreter.
    pub(super) fn look(
        &mut self,
        pid: u32,
        process_dir: &Path,
        mappings: &[Mapping],
    ) -> Looked<FrameLayout> {
        let mut looked = Looked::Nothing;
        for mapping in mappings {
            if !Self::may_be(mapping.file_name().as_bytes()) {
                continue;
            }
            let Ok(file) = open_mapped(process_dir, mapping) else {
                continue;
            };
            // Thread-safe builds have no such variable, and are not known here.
            let Some(found) = self.files.get(file, read_globals) else {
                continue;
            };
            let (elf, globals) = &*found;
            let Some(bias) = elf.bias(mapping.range.start, mapping.offset) else {
                continue;
            };
            looked = Looked::NotYet;
            let globals = globals.wrapping_add(bias);
            if is_executor(Memory::of(pid), globals) {
                return Looked::Found(layout(globals));
            }
        }
        looked
    }
}

fn read_globals(file: File) -> Option<(Elf, u64)> {
    let source = ElfSource::from_file(file).ok()?;
    let elf = Elf::parse(&source).ok()?;
    let table = SymbolTable::dynamic(&elf, &source, TABLE_MAX_BYTES)?;
    let address = table.address("executor_globals")?;
    Some((elf.without_sections(), address))
}

/// The stack's page and its size stand before the current frame, or this is another layout. Between
/// requests a worker has the size and no page; before its first, only the table of constants.
pub(super) fn is_executor(memory: Memory, globals: u64) -> bool {
    let words = globals
        .checked_add(CONSTANTS)
        .and_then(|at| memory.read(at, 40))
        .unwrap_or_default();
    let [constants, top, end, page, page_bytes] = [0, 8, 16, 24, 32].map(|at| u64_at(&words, at));
    if [top, end, page, page_bytes] == [0; 4] {
        return is_table_of_names(memory, constants);
    }
    let is_page = end > page && (end - page).is_multiple_of(VM_STACK_PAGE_BYTES);
    page_bytes == VM_STACK_PAGE_BYTES && (page == 0 || is_page)
}

fn is_table_of_names(memory: Memory, at: u64) -> bool {
    let Some(table) = memory.read(at, TABLE_BYTES).filter(|_| at != 0) else {
        return false;
    };
    let [used, elements, size] = [24, 28, 32].map(|at| u32_at(&table, at));
    let is_filled = elements > 0 && elements <= used && used <= size && size.is_power_of_two();
    is_filled && u64_at(&table, 40) == i64::MIN as u64
}

fn layout(globals: u64) -> FrameLayout {
    FrameLayout {
        root: Root::Address(globals + CURRENT_FRAME),
        state_owner: None,
        owner_native: None,
        state_thread: 0,
        state_frame: 0,
        cframe_frame: None,
        frame_code: FRAME_FUNCTION,
        caller: Caller::Linked {
            previous: FRAME_PREVIOUS,
        },
        frame_instruction: FRAME_OPLINE,
        instruction_is_i32: false,
        frame_owner: None,
    }
}

/// A frame without function is one whose function could not be read.
pub(super) fn name(pid: u32, frames: &[(u64, u64)]) -> Vec<Frame> {
    let memory = Memory::of(pid);
    let functions: Vec<u64> = frames.iter().map(|(function, _)| *function).collect();
    let before = memory.read_each(&functions, FUNCTION_BYTES);
    let mut named: Vec<Frame> = frames
        .iter()
        .zip(&before)
        .map(|((_, opline), function)| {
            let function = function.as_deref();
            function
                .and_then(|function| read_frame(memory, function, *opline))
                .unwrap_or_else(|| frame(None))
        })
        .collect();
    // A request that ends frees its functions: what changed meanwhile was not what the frame ran.
    let after = memory.read_each(&functions, FUNCTION_BYTES);
    for ((frame_of, before), after) in named.iter_mut().zip(&before).zip(&after) {
        if before != after {
            *frame_of = frame(None);
        }
    }
    named
}

fn read_frame(memory: Memory, function: &[u8], opline: u64) -> Option<Frame> {
    let kind = *function.first()?;
    let name = match u64_at(function, FUNCTION_NAME) {
        // As PHP's own traces call the code outside all functions.
        0 if kind != INTERNAL_FUNCTION => "{main}".to_owned(),
        at => text(memory, at)?,
    };
    let function_name = match u64_at(function, FUNCTION_CLASS) {
        0 => name,
        class => {
            let class = memory.u64_at(class.checked_add(CLASS_NAME)?)?;
            format!("{}::{name}", text(memory, class)?)
        }
    };
    match kind {
        INTERNAL_FUNCTION => Some(Frame {
            module: Some("php".to_owned()),
            ..frame(Some(function_name))
        }),
        USER_FUNCTION | EVAL_CODE => {
            let (file, line) = place(memory, function, opline).unzip();
            Some(Frame {
                file,
                line: line.flatten(),
                ..frame(Some(function_name))
            })
        }
        _ => None,
    }
}

/// File and line, where the words around the file look as they must.
fn place(memory: Memory, function: &[u8], opline: u64) -> Option<(String, Option<u32>)> {
    FILE_PLACES.iter().find_map(|&at| {
        let lines = u32_at(function, at + 8)..=u32_at(function, at + 12);
        let instructions = u64_at(function, at - INSTRUCTIONS_BEFORE_FILE);
        let distance = opline.checked_sub(instructions)?;
        if lines.is_empty() || distance % INSTRUCTION_BYTES != 0 {
            return None;
        }
        let file = text(memory, u64_at(function, at))?;
        let line = memory
            .read(opline.checked_add(INSTRUCTION_LINE)?, 4)
            .map(|line| u32_at(&line, 0))
            .filter(|line| lines.contains(line));
        Some((file, line))
    })
}

fn text(memory: Memory, at: u64) -> Option<String> {
    let head = memory.read(at, STRING_HEAD_BYTES)?;
    let length = u64_at(&head, 16);
    if u32_at(&head, 4) & 0xf != STRING_TYPE || length == 0 || length > NAME_MAX_BYTES {
        return None;
    }
    let text = memory.read(
        at.checked_add(STRING_HEAD_BYTES as u64)?,
        length as usize + 1,
    )?;
    let text = text.strip_suffix(b"\0")?;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn frame(function: Option<String>) -> Frame {
    Frame {
        function,
        ..Frame::unnamed(FrameKind::Php, None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own() -> Memory {
        Memory::of(std::process::id())
    }

    /// A `zend_string` in memory of this process.
    fn string(text: &str) -> Vec<u8> {
        let mut bytes = 1_u32.to_le_bytes().to_vec();
        bytes.extend(0x16_u32.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_function_of_8_2_has_name_file_and_line() {
        let (name, file) = (string("get_client"), string("/srv/orders.php"));
        let mut instructions = [0_u8; 96];
        instructions[64 + 24..64 + 28].copy_from_slice(&9_u32.to_le_bytes());
        let mut function = vec![0_u8; FUNCTION_BYTES];
        function[0] = USER_FUNCTION;
        let mut put = |at: usize, word: u64| {
            function[at..at + 8].copy_from_slice(&word.to_le_bytes());
        };
        put(FUNCTION_NAME, name.as_ptr() as u64);
        put(88, instructions.as_ptr() as u64);
        put(152, file.as_ptr() as u64);
        put(160, 7 | 11 << 32);
        let opline = instructions.as_ptr() as u64 + 64;
        let frame = read_frame(own(), &function, opline).expect("a frame");
        assert_eq!(frame.function.as_deref(), Some("get_client"));
        assert_eq!(frame.file.as_deref(), Some("/srv/orders.php"));
        assert_eq!(frame.line, Some(9));
    }

    #[test]
    fn an_executor_is_known_before_its_first_request_and_between_two() {
        let table = [1_u64, 0, 0, 0x508 | 0x508 << 32, 0x800, i64::MIN as u64];
        let is_known = |row: [u64; 5]| {
            let mut globals = [0_u64; 64];
            globals[CONSTANTS as usize / 8..][..5].copy_from_slice(&row);
            is_executor(own(), globals.as_ptr() as u64)
        };
        let constants = table.as_ptr() as u64;
        assert!(is_known([constants, 0, 0, 0, 0]));
        assert!(is_known([constants, 0, 0, 0, VM_STACK_PAGE_BYTES]));
        let page = 0x7000_0000_0000;
        let end = page + VM_STACK_PAGE_BYTES;
        assert!(is_known([constants, page, end, page, VM_STACK_PAGE_BYTES]));
        assert!(!is_known([0, 0, 0, 0, 0]));
        assert!(!is_known([page, 0, 0, 0, 0]));
        assert!(!is_known([
            constants,
            page,
            end + 8,
            page,
            VM_STACK_PAGE_BYTES
        ]));
    }

    #[test]
    fn a_place_that_is_no_string_gives_no_name() {
        let number = 7_u64.to_le_bytes();
        assert_eq!(text(own(), number.as_ptr() as u64), None);
        assert_eq!(text(own(), 8), None);
    }

    proptest! {
        #[test]
        fn any_function_has_an_answer(
            function in prop::collection::vec(any::<u8>(), 0..FUNCTION_BYTES),
            opline: u64,
        ) {
            let _ = read_frame(own(), &function, opline);
        }
    }
}
