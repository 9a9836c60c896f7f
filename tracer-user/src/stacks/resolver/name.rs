//! The addresses of a walk turned into named frames, and what a reader must know of them.

use std::mem;
use std::rc::Rc;

use super::super::ending::{doubts, early_end, java_doubts};
use super::super::java::Jvm;
use super::super::modules::{Code, Mapping};
use super::super::symbolize::NamedFrame;
use super::super::unwind::{FRAMES_MAX, Walk};
use super::super::{Frame, FrameKind, Stack, StackSample};
use super::{Process, Resolver};

impl Resolver {
    pub(super) fn name(
        &mut self,
        pid: u32,
        process: &mut Process,
        mut walk: Walk,
        sample: &StackSample,
    ) -> Stack {
        let Process {
            table,
            perf_map,
            jvm,
            ..
        } = process;
        let lack = jvm.lack();
        let ask_java = lack.is_some() && self.config.java_perfmap;
        let mut java = mem::take(&mut walk.java);
        let mut unnamed_java = 0;
        let mut frames = Vec::with_capacity(walk.addresses.len());
        for (index, address) in walk.addresses.iter().enumerate() {
            let address = address.address_for_lookup();
            let Some(mapping) = table.at(address) else {
                continue;
            };
            if let Some(named) = java.remove(&index) {
                frames.extend(named);
            } else if let Code::Anonymous = &mapping.code {
                let name = perf_map.name(&self.config.proc_root, pid, address, ask_java);
                unnamed_java += usize::from(lack.is_some() && name.is_none());
                frames.push(Frame {
                    function: name.map(|name| name.to_string()),
                    ..Frame::unnamed(FrameKind::Jit, mapping.module())
                });
            } else {
                self.append_frames(mapping, address, &mut frames);
            }
        }
        let table = &*table;
        let mut notes = Vec::new();
        if let Some(cause) = early_end(table, &walk, sample, frames.last()) {
            notes.push(format!("stack ends early: {cause}"));
        }
        notes.extend(doubts(table, &walk));
        if let Some(failure) = &perf_map.failure {
            notes.push(failure.to_string());
        }
        if let Some(cause) = lack {
            let remedy = match (&*jvm, self.config.java_perfmap) {
                (Jvm::Refused(..), false) => "; --java-perfmap names what was compiled",
                _ => "",
            };
            notes.extend(java_doubts(table, &walk, cause, (unnamed_java, remedy)));
        }
        if frames.len() > FRAMES_MAX * 2 {
            frames.truncate(FRAMES_MAX * 2);
            notes.push(format!(
                "stack ends early: more than {} frames",
                FRAMES_MAX * 2
            ));
        }
        Stack {
            frames,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        }
    }

    fn append_frames(&mut self, mapping: &Mapping, address: u64, frames: &mut Vec<Frame>) {
        let module = mapping.module();
        let (image, bias) = match &mapping.code {
            Code::Image { image, bias } => (image, *bias),
            Code::Unreadable(_) => return frames.push(Frame::unnamed(FrameKind::Native, module)),
            Code::Anonymous => return frames.push(Frame::unnamed(FrameKind::Jit, module)),
        };
        let in_file = address.wrapping_sub(bias);
        let key = (image.number, in_file);
        let named = match self.names.get(key) {
            Some(named) => named,
            None => {
                let had_bytes = image.names_bytes();
                let named: Rc<[NamedFrame]> = image.lookup(in_file, &self.sources).into();
                if image.names_bytes() != had_bytes {
                    self.images.shrink_names(image);
                }
                self.names.insert(key, Rc::clone(&named));
                named
            }
        };
        let kind = match image.is_go() {
            true => FrameKind::Go,
            false => FrameKind::Native,
        };
        if named.is_empty() {
            frames.push(Frame::unnamed(kind, module.clone()));
        }
        frames.extend(named.iter().map(|named| Frame {
            function: named.function.as_deref().map(str::to_owned),
            file: named.file.as_deref().map(str::to_owned),
            line: named.line,
            module: module.clone(),
            kind,
            inlined: named.inlined,
        }));
    }
}
