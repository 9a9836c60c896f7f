//! Activations as frames with names: of compiled code, each method that was inlined there too.

use super::super::{Frame, FrameKind};
use super::activation::Activation;
use super::calls::Called;
use super::code_cache::{Blob, BlobKind};
use super::machine::Machine;
use super::method::{MethodReader, MethodText};
use super::nmethod::compiled;
use super::walk_memory::WalkMemory;

/// What one activation ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Innermost first; without what Java leaves out of its own traces.
    pub(super) frames: Vec<Frame>,
    /// What whoever is outside of it has called, where that is known by name.
    pub(super) callee: Option<String>,
    /// What it has called itself.
    pub(super) called: Called,
}

impl Machine {
    /// None where its code or its method is gone, or is none.
    pub(super) fn name(
        &self,
        memory: WalkMemory<'_>,
        methods: &mut MethodReader,
        activation: &Activation,
    ) -> Option<Named> {
        match activation {
            Activation::Interpreted { method, bytecode } => {
                self.interpreted(memory, methods, *method, *bytecode)
            }
            Activation::Compiled { blob, pc } => self.compiled(memory, methods, blob, *pc),
            Activation::Stub(name) => Some(Named {
                frames: vec![Frame {
                    function: Some(name.clone()),
                    ..Frame::unnamed(FrameKind::Jit, None)
                }],
                callee: None,
                called: Called::Any,
            }),
        }
    }

    fn interpreted(
        &self,
        memory: WalkMemory<'_>,
        methods: &mut MethodReader,
        method: u64,
        bytecode: u64,
    ) -> Option<Named> {
        let text = methods.read(memory, self.pid, &self.layout, method)?;
        // A method written in C runs no bytecode.
        if text.bytecode_bytes == 0 {
            return Some(native(&text));
        }
        let bci = bytecode.checked_sub(text.bytecode)?;
        let bci = u16::try_from(bci).ok()?;
        // Else the frame ran another method, which was in this place.
        (bci < text.bytecode_bytes).then(|| Named {
            frames: shown(&text, Some(bci.into()), false).into_iter().collect(),
            callee: callee(&text),
            called: Called::at(memory, &self.layout, &text, bci.into()),
        })
    }

    fn compiled(
        &self,
        memory: WalkMemory<'_>,
        methods: &mut MethodReader,
        blob: &Blob,
        pc: u64,
    ) -> Option<Named> {
        let code = compiled(memory, &self.layout, blob)?;
        let mut read = |method| methods.read(memory, self.pid, &self.layout, method);
        let Some(info) = code.debug_info.filter(|_| blob.kind == BlobKind::Compiled) else {
            let text = read(code.method)?;
            return (text.bytecode_bytes == 0).then(|| native(&text));
        };
        let offset = u32::try_from(pc.checked_sub(blob.code.start)?).ok()?;
        let scopes = info.at(offset)?;
        // What is outermost is what was compiled.
        if scopes.last()?.method != code.method {
            return None;
        }
        let outermost = scopes.len() - 1;
        let mut named = Named {
            frames: Vec::new(),
            callee: None,
            called: Called::Any,
        };
        for (index, scope) in scopes.iter().enumerate() {
            let text = read(scope.method)?;
            if index == 0 {
                named.called = Called::at(memory, &self.layout, &text, scope.bci);
            }
            let frames = shown(&text, Some(scope.bci), index != outermost);
            named.frames.extend(frames);
            named.callee = callee(&text);
        }
        Some(named)
    }
}

fn native(text: &MethodText) -> Named {
    Named {
        frames: shown(text, None, false).into_iter().collect(),
        callee: callee(text),
        called: Called::Any,
    }
}

/// A lambda's glue is called by whatever name the lambda has.
fn callee(text: &MethodText) -> Option<String> {
    (!text.is_hidden).then(|| text.simple_name().to_owned())
}

/// None for what Java leaves out of its own traces.
fn shown(text: &MethodText, bci: Option<u32>, inlined: bool) -> Option<Frame> {
    let lines = text.lines().filter(|_| text.file.is_some());
    (!text.is_hidden).then(|| Frame {
        function: Some(text.name.clone()),
        file: text.file.clone(),
        line: bci.and_then(|bci| lines?.line_at(bci)),
        inlined,
        ..Frame::unnamed(FrameKind::Java, None)
    })
}
