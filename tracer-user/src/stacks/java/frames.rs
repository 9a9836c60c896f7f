//! Activations as frames with names: of compiled code, each method that was inlined there too.

use super::super::{Frame, FrameKind};
use super::activation::{Activation, compiled};
use super::code_cache::{Blob, BlobKind};
use super::machine::Machine;
use super::method::{MethodReader, MethodText};

impl Machine {
    /// Innermost first; empty where Java itself would not show it, none where its code or its
    /// method was gone, or is none.
    pub(super) fn name(
        &self,
        methods: &mut MethodReader,
        activation: &Activation,
    ) -> Option<Vec<Frame>> {
        match activation {
            Activation::Interpreted { method, bytecode } => {
                self.interpreted(methods, *method, *bytecode)
            }
            Activation::Compiled { blob, pc } => self.compiled(methods, blob, *pc),
            Activation::Stub(name) => Some(vec![Frame {
                function: Some(name.clone()),
                ..frame(FrameKind::Jit)
            }]),
        }
    }

    fn interpreted(
        &self,
        methods: &mut MethodReader,
        method: u64,
        bytecode: u64,
    ) -> Option<Vec<Frame>> {
        let text = methods.read(self.memory, self.pid, &self.layout, method)?;
        // A method written in C runs no bytecode.
        if text.bytecode_bytes == 0 {
            return Some(shown(&text, None, false));
        }
        let bci = bytecode.checked_sub(text.bytecode)?;
        let bci = u16::try_from(bci).ok()?;
        // Else the frame ran another method, which was in this place.
        (bci < text.bytecode_bytes).then(|| shown(&text, Some(bci.into()), false))
    }

    fn compiled(&self, methods: &mut MethodReader, blob: &Blob, pc: u64) -> Option<Vec<Frame>> {
        let code = compiled(self.memory, &self.layout, blob)?;
        let mut read = |method| methods.read(self.memory, self.pid, &self.layout, method);
        let Some(info) = code.debug_info.filter(|_| blob.kind == BlobKind::Compiled) else {
            return Some(shown(&*read(code.method)?, None, false));
        };
        let offset = u32::try_from(pc.checked_sub(blob.code.start)?).ok()?;
        let scopes = info.at(offset)?;
        // What is outermost is what was compiled.
        if scopes.last()?.method != code.method {
            return None;
        }
        let outermost = scopes.len() - 1;
        let mut frames = Vec::new();
        for (index, scope) in scopes.iter().enumerate() {
            let text = read(scope.method)?;
            frames.extend(shown(&text, Some(scope.bci), index != outermost));
        }
        Some(frames)
    }
}

/// None for what Java leaves out of its own traces.
fn shown(text: &MethodText, bci: Option<u32>, inlined: bool) -> Vec<Frame> {
    if text.is_hidden {
        return Vec::new();
    }
    let lines = text.lines.as_ref().filter(|_| text.file.is_some());
    vec![Frame {
        function: Some(text.name.clone()),
        file: text.file.clone(),
        line: bci.and_then(|bci| lines?.line_at(bci)),
        inlined,
        ..frame(FrameKind::Java)
    }]
}

fn frame(kind: FrameKind) -> Frame {
    Frame {
        function: None,
        file: None,
        line: None,
        module: None,
        kind,
        inlined: false,
    }
}
