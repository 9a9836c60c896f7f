//! The layout of a JVM's structs, from the tables in which it describes itself.

use super::tables::{Tables, Untold};

/// Structs whose fields are asked for.
pub(super) const STRUCTS: &[&str] = &[
    "Abstract_VM_Version",
    "Array<ResolvedMethodEntry>",
    "CodeBlob",
    "CodeCache",
    "CodeHeap",
    "CompiledMethod",
    "ConstMethod",
    "ConstMethodFlags",
    "ConstantPool",
    "ConstantPoolCache",
    "ConstantPoolCacheEntry",
    "GenericGrowableArray",
    "GrowableArray<int>",
    "GrowableArrayBase",
    "HeapBlock",
    "HeapBlock::Header",
    "InstanceKlass",
    "Klass",
    "Method",
    "PcDesc",
    "ResolvedMethodEntry",
    "Symbol",
    "VirtualSpace",
    "frame",
    "nmethod",
];

/// No struct of HotSpot's is as large.
pub(super) const STRUCT_MAX_BYTES: usize = 2_048;
/// What the tables do not tell is the same in these: the slots of an interpreted frame, how scopes
/// and lines are written.
pub(super) const VERSIONS: std::ops::RangeInclusive<i32> = 11..=25;
/// Of these, the ones where a virtual thread's stack goes on in the heap, and no name says where.
pub(super) const WITH_VIRTUAL_THREADS_IN_PREVIEW: std::ops::RangeInclusive<i32> = 19..=20;
/// `UNSIGNED5` excludes zero from here on.
const ZERO_EXCLUDED: i32 = 20;
/// frame_x86.hpp, from `last_sp` on: method, mirror, mdp, cache, locals, bcp.
const METHOD_AFTER_LAST_SP: i64 = 1;
const BYTECODE_AFTER_LAST_SP: i64 = 6;

/// Offsets in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) cache: CodeCacheLayout,
    pub(super) blob: BlobLayout,
    pub(super) compiled: CompiledLayout,
    pub(super) method: MethodLayout,
    /// Of an interpreted frame, from its frame pointer.
    pub(super) frame_method: i64,
    pub(super) frame_bytecode: i64,
    /// Of [`super::unsigned5::Unsigned5`].
    pub(super) excluded: u8,
}

/// `CodeCache`, `CodeHeap`, `HeapBlock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CodeCacheLayout {
    /// Address of the variable that has the array of heaps.
    pub(super) heaps: u64,
    pub(super) array_length: usize,
    pub(super) array_elements: usize,
    pub(super) heap_low: usize,
    pub(super) heap_high: usize,
    pub(super) segments_low: usize,
    pub(super) segments_high: usize,
    pub(super) segment_shift: usize,
    pub(super) block_bytes: usize,
    pub(super) block_length: usize,
    pub(super) block_used: usize,
}

/// `CodeBlob`: a piece of compiled code, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlobLayout {
    pub(super) bytes: usize,
    pub(super) name: usize,
    pub(super) frame_size: usize,
    pub(super) code: Extent,
    pub(super) code_begin: usize,
    pub(super) code_end: usize,
}

/// How a blob says where its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Up to JDK 22.
    Pointers,
    /// From its own beginning.
    Offsets,
}

/// `nmethod`: a compiled method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CompiledLayout {
    pub(super) bytes: usize,
    pub(super) method: usize,
    pub(super) state: usize,
    pub(super) compile_id: usize,
    /// Where a frame goes on that is to be interpreted from now on; as [`Extent`] says.
    pub(super) deoptimized: usize,
    /// Where such a frame keeps the place that it would have gone on at.
    pub(super) original_pc: usize,
    pub(super) debug_info: DebugInfoLayout,
    /// `PcDesc`
    pub(super) place_bytes: usize,
    pub(super) place_pc: usize,
    pub(super) place_scope: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DebugInfoLayout {
    /// Up to JDK 22: in the blob itself, one after the other.
    Within {
        metadata: usize,
        scopes: usize,
        places: usize,
        places_end: usize,
    },
    /// From JDK 25 on: in two blocks of malloc's.
    Apart {
        mutable: usize,
        mutable_bytes: usize,
        relocation_bytes: usize,
        immutable: usize,
        immutable_bytes: usize,
        places: usize,
        scopes: usize,
    },
}

/// `Method`, `ConstMethod`, `ConstantPool`, `InstanceKlass`, `Symbol`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MethodLayout {
    pub(super) constant_part: usize,
    /// Of `ConstMethod`, which the bytecode follows.
    pub(super) constant_bytes: usize,
    pub(super) constant_pool: usize,
    /// In words: bytecode and tables included.
    pub(super) constant_words: usize,
    pub(super) flags: usize,
    pub(super) has_lines: u16,
    pub(super) code_bytes: usize,
    pub(super) name: usize,
    /// Of `ConstantPool`, which its entries follow.
    pub(super) pool_bytes: usize,
    pub(super) pool_length: usize,
    pub(super) pool_class: usize,
    pub(super) source_file: SourceFile,
    pub(super) calls: CallLayout,
    pub(super) class_name: usize,
    pub(super) class_pool: usize,
    pub(super) symbol_length: usize,
    pub(super) symbol_text: usize,
}

/// Where a bytecode that calls has its index: entries of `ConstantPoolCache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallLayout {
    /// Of `ConstantPool`.
    pub(super) cache: usize,
    pub(super) entries: CallEntries,
    pub(super) entry_bytes: usize,
    /// Of the entry in the pool itself.
    pub(super) index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallEntries {
    /// Up to JDK 21: after so many bytes of the cache.
    Behind(usize),
    /// In an array that the cache points to.
    Apart { array: usize, elements: usize },
}

/// Whose field says which entry of the constant pool is the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceFile {
    Pool(usize),
    /// Up to JDK 14.
    Class(usize),
}

impl Layout {
    pub(super) fn of(tables: &Tables, version: i32) -> Result<Self, Untold> {
        let last_sp = tables.constant("frame", "interpreter_frame_last_sp_offset")?;
        let slot = |after: i64| (i64::from(last_sp) - after) * 8;
        Ok(Self {
            cache: CodeCacheLayout::of(tables)?,
            blob: BlobLayout::of(tables)?,
            compiled: CompiledLayout::of(tables)?,
            method: MethodLayout::of(tables)?,
            frame_method: slot(METHOD_AFTER_LAST_SP),
            frame_bytecode: slot(BYTECODE_AFTER_LAST_SP),
            excluded: (version >= ZERO_EXCLUDED).into(),
        })
    }
}

impl CodeCacheLayout {
    fn of(tables: &Tables) -> Result<Self, Untold> {
        let field = |of, field| offset(tables, of, field);
        let memory = field("CodeHeap", "_memory")?;
        let segments = field("CodeHeap", "_segmap")?;
        let low = field("VirtualSpace", "_low")?;
        let high = field("VirtualSpace", "_high_boundary")?;
        let header = field("HeapBlock", "_header")?;
        Ok(Self {
            heaps: tables.address("CodeCache", "_heaps")?,
            array_length: field("GrowableArrayBase", "_len")
                .or_else(|_| field("GenericGrowableArray", "_len"))?,
            array_elements: field("GrowableArray<int>", "_data")?,
            heap_low: memory + low,
            heap_high: memory + high,
            segments_low: segments + low,
            segments_high: segments + high,
            segment_shift: field("CodeHeap", "_log2_segment_size")?,
            block_bytes: size(tables, "HeapBlock")?,
            block_length: header + field("HeapBlock::Header", "_length")?,
            block_used: header + field("HeapBlock::Header", "_used")?,
        })
    }
}

impl BlobLayout {
    fn of(tables: &Tables) -> Result<Self, Untold> {
        let field = |field| offset(tables, "CodeBlob", field);
        let pointers = field("_code_begin").and_then(|begin| Ok((begin, field("_code_end")?)));
        let (code, (code_begin, code_end)) = match pointers {
            Ok(pointers) => (Extent::Pointers, pointers),
            Err(_) => (
                Extent::Offsets,
                (field("_code_offset")?, field("_data_offset")?),
            ),
        };
        Ok(Self {
            bytes: size(tables, "CodeBlob")?,
            name: field("_name")?,
            frame_size: field("_frame_size")?,
            code,
            code_begin,
            code_end,
        })
    }
}

impl CompiledLayout {
    fn of(tables: &Tables) -> Result<Self, Untold> {
        let own = |field| offset(tables, "nmethod", field);
        let field = |field| offset(tables, "CompiledMethod", field).or_else(|_| own(field));
        let blob = |field| offset(tables, "CodeBlob", field);
        let debug_info = match own("_immutable_data") {
            Ok(immutable) => DebugInfoLayout::Apart {
                mutable: blob("_mutable_data")?,
                mutable_bytes: blob("_mutable_data_size")?,
                relocation_bytes: blob("_relocation_size")?,
                immutable,
                immutable_bytes: own("_immutable_data_size")?,
                places: own("_scopes_pcs_offset")?,
                scopes: own("_scopes_data_offset")?,
            },
            Err(_) => DebugInfoLayout::Within {
                metadata: own("_metadata_offset")?,
                scopes: field("_scopes_data_begin")?,
                places: own("_scopes_pcs_offset")?,
                places_end: own("_dependencies_offset")?,
            },
        };
        Ok(Self {
            bytes: size(tables, "nmethod")?,
            method: field("_method")?,
            state: own("_state")?,
            compile_id: own("_compile_id")?,
            deoptimized: field("_deopt_handler_begin").or_else(|_| own("_deopt_handler_offset"))?,
            original_pc: own("_orig_pc_offset")?,
            debug_info,
            place_bytes: size(tables, "PcDesc")?,
            place_pc: offset(tables, "PcDesc", "_pc_offset")?,
            place_scope: offset(tables, "PcDesc", "_scope_decode_offset")?,
        })
    }
}

impl MethodLayout {
    fn of(tables: &Tables) -> Result<Self, Untold> {
        let constant = |field| offset(tables, "ConstMethod", field);
        let pool = |field| offset(tables, "ConstantPool", field);
        let class = |field| offset(tables, "InstanceKlass", field);
        let has_lines = tables
            .constant("ConstMethod", "_has_linenumber_table")
            .or_else(|_| tables.constant("ConstMethodFlags", "_misc_has_linenumber_table"))?;
        let source_file = match pool("_source_file_name_index") {
            Ok(at) => SourceFile::Pool(at),
            Err(_) => SourceFile::Class(class("_source_file_name_index")?),
        };
        Ok(Self {
            constant_part: offset(tables, "Method", "_constMethod")?,
            constant_bytes: size(tables, "ConstMethod")?,
            constant_pool: constant("_constants")?,
            constant_words: constant("_constMethod_size")?,
            flags: constant("_flags").or_else(|_| constant("_flags._flags"))?,
            has_lines: has_lines as u16,
            code_bytes: constant("_code_size")?,
            name: constant("_name_index")?,
            pool_bytes: size(tables, "ConstantPool")?,
            pool_length: pool("_length")?,
            pool_class: pool("_pool_holder")?,
            source_file,
            calls: CallLayout::of(tables)?,
            class_name: offset(tables, "Klass", "_name")?,
            class_pool: class("_constants")?,
            symbol_length: offset(tables, "Symbol", "_length")?,
            symbol_text: offset(tables, "Symbol", "_body")?,
        })
    }
}

impl CallLayout {
    fn of(tables: &Tables) -> Result<Self, Untold> {
        let field = |of, field| offset(tables, of, field);
        let array = field("ConstantPoolCache", "_resolved_method_entries");
        let (entries, of, index) = match array {
            Ok(array) => {
                let elements = field("Array<ResolvedMethodEntry>", "_data")?;
                let entries = CallEntries::Apart { array, elements };
                (entries, "ResolvedMethodEntry", "_cpool_index")
            }
            Err(_) => {
                let behind = CallEntries::Behind(size(tables, "ConstantPoolCache")?);
                (behind, "ConstantPoolCacheEntry", "_indices")
            }
        };
        Ok(Self {
            cache: field("ConstantPool", "_cache")?,
            entries,
            entry_bytes: size(tables, of)?,
            index: field(of, index)?,
        })
    }
}

fn offset(tables: &Tables, of: &str, field: &str) -> Result<usize, Untold> {
    bounded(tables.offset(of, field)?, of)
}

fn size(tables: &Tables, of: &str) -> Result<usize, Untold> {
    bounded(tables.size(of)?, of)
}

fn bounded(bytes: u64, of: &str) -> Result<usize, Untold> {
    let bytes = usize::try_from(bytes).ok();
    let bytes = bytes.filter(|bytes| *bytes <= STRUCT_MAX_BYTES);
    bytes.ok_or_else(|| Untold(format!("a plausible {of}")))
}
