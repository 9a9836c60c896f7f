//! Attaching: each hook by the best family that the kernel and the user allow.

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint, TracePoint,
    },
};

use super::{
    error::{KernelError, root_cause},
    probes::{
        Candidate, Family, Hook, Kind, PREEMPTED, Probes, ProgramCost, Refusal, Traits, candidates,
        category, substitute,
    },
};

/// The ends come before the beginnings, so that no socket is seen opening and not closing; and
/// the state hook after connect, as it stands in for it where it has no hook.
pub(super) const ORDER: [Hook; 8] = [
    Hook::Destroy,
    Hook::Close,
    Hook::Fork,
    Hook::Exec,
    Hook::Exit,
    Hook::Connect,
    Hook::State,
    Hook::Accept,
];

/// Attaches every hook, by `forced` alone if given.
///
/// # Errors
///
/// A hook without substitute that no family can carry, or that `forced` cannot.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    btf: &Btf,
    forced: Option<Family>,
    traits: Traits,
) -> Result<Probes, KernelError> {
    let mut probes = Probes::default();
    let mut connect_is_hooked = false;
    for hook in ORDER {
        let mut refused = Vec::new();
        let mut taken = None;
        for candidate in candidates(hook, connect_is_hooked, traits) {
            if !allowed(hook, candidate.kind, forced, traits) {
                continue;
            }
            match attach_with_twins(ebpf, btf, candidate) {
                Ok(costs) => {
                    probes.programs.extend(costs);
                    probes.mains.push((candidate.program, candidate.twins));
                    taken = Some(candidate.kind);
                    break;
                }
                Err(error) => {
                    unload(ebpf, candidate);
                    refused.push((candidate.kind, root_cause(&error)));
                }
            }
        }
        let (family, cause) = match (taken, refused.last().cloned(), substitute(hook)) {
            (Some(by), ..) => {
                connect_is_hooked |= hook == Hook::Connect;
                probes.taken.push((hook, by.name()));
                let refused = refused.into_iter();
                let refused = refused.filter(|(kind, _)| kind.family() == Family::Tracepoint);
                probes.refusals.extend(refused.map(|(kind, cause)| Refusal {
                    hook,
                    taken: by.name(),
                    refused: kind.name(),
                    cause,
                }));
                if traits.preempts && can_be_preempted(hook, by) {
                    probes.losses.push((hook, PREEMPTED));
                }
                continue;
            }
            (None, Some((kind, cause)), _) if forced == Some(kind.family()) => {
                (kind.family(), cause)
            }
            (None, _, Some((by, loss))) => {
                probes.taken.push((hook, by));
                probes.losses.push((hook, loss));
                continue;
            }
            (None, Some((kind, cause)), None) => (kind.family(), cause),
            (None, None, None) => (Family::Tracepoint, "no program for it".to_owned()),
        };
        return Err(KernelError::Attach {
            hook,
            family,
            cause,
        });
    }
    Ok(probes)
}

/// Perf's programs are taken where there are any, as the others are preempted. Two twins beside
/// fork's do what matters.
fn can_be_preempted(hook: Hook, taken: Kind) -> bool {
    hook != Hook::Fork && matches!(taken, Kind::BtfTracepoint | Kind::RawTracepoint)
}

/// A program that could not be attached does not stay in the kernel, nor without its twins.
fn unload(ebpf: &mut Ebpf, candidate: Candidate) {
    let twins = candidate.twins.iter().map(|&(twin, _)| twin);
    for name in twins.chain([candidate.program]) {
        // It may not have been loaded at all; then there is nothing to undo.
        let _ = match ebpf.program_mut(name) {
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(Program::BtfTracePoint(program)) => program.unload(),
            Some(Program::RawTracePoint(program)) => program.unload(),
            Some(Program::TracePoint(program)) => program.unload(),
            _ => Ok(()),
        };
    }
}

/// State and process hooks are tracepoints whatever the family asked for: it chooses how connect,
/// close and accept are seen.
fn allowed(hook: Hook, kind: Kind, forced: Option<Family>, traits: Traits) -> bool {
    // A copy of the stack takes its time: preempted in it, a program of fentry is left out for all
    // others on that CPU. Perf's program of the state hook is not.
    if hook == Hook::Connect && traits.preempts && forced.is_none() {
        return false;
    }
    match (kind.family(), forced) {
        (Family::Tracepoint, _) | (_, None) => true,
        (family, Some(forced)) => family == forced,
    }
}

/// The twins come after it: they look at what it has done.
fn attach_with_twins(
    ebpf: &mut Ebpf,
    btf: &Btf,
    candidate: Candidate,
) -> Result<Vec<ProgramCost>, ProgramError> {
    let mut costs = vec![attach(ebpf, btf, candidate)?];
    for &(program, kind) in candidate.twins {
        let twin = Candidate {
            program,
            kind,
            ..candidate
        };
        costs.push(attach(ebpf, btf, twin)?);
    }
    Ok(costs)
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, candidate: Candidate) -> Result<ProgramCost, ProgramError> {
    let Candidate {
        program: name,
        kind,
        target,
        ..
    } = candidate;
    let program = ebpf
        .program_mut(name)
        .ok_or(ProgramError::UnexpectedProgramType)?;
    match kind {
        Kind::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Kind::Fexit => {
            let program: &mut FExit = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Kind::Kprobe | Kind::Kretprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(target, 0)?;
        }
        Kind::BtfTracepoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Kind::RawTracepoint => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(target)?;
        }
        Kind::PerfTracepoint => {
            let program: &mut TracePoint = program.try_into()?;
            program.load()?;
            program.attach(category(target), target)?;
        }
    }
    Ok(cost(name, program))
}

fn cost(name: &str, program: &Program) -> ProgramCost {
    ProgramCost {
        name: name.to_owned(),
        verified_insns: program
            .info()
            .ok()
            .and_then(|info| info.verified_instruction_count()),
    }
}
