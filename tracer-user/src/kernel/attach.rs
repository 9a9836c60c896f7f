//! Attaching: each hook by the best family that the kernel and the user allow.

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};

use super::{
    error::{KernelError, root_cause},
    probes::{Candidate, Family, Hook, Kind, Probes, ProgramCost, candidates, substitute, twin},
};

/// The ends come before the beginnings, so that no socket is seen opening and not closing; and
/// the state hook after connect, as it stands in for it where it has no hook.
const ORDER: [Hook; 8] = [
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
    accept_arguments: Option<usize>,
) -> Result<Probes, KernelError> {
    let mut probes = Probes::default();
    let mut connect_is_hooked = false;
    for hook in ORDER {
        let mut refusal = None;
        let mut taken = None;
        for candidate in candidates(hook, connect_is_hooked, accept_arguments) {
            if !allowed(candidate.kind, forced) {
                continue;
            }
            match attach_with_twin(ebpf, btf, candidate) {
                Ok(costs) => {
                    probes.programs.extend(costs);
                    taken = Some(candidate.kind.name());
                    break;
                }
                Err(error) => {
                    unload(ebpf, candidate.program);
                    refusal = Some((candidate.kind.family(), root_cause(&error)));
                }
            }
        }
        let (family, cause) = match (taken, refusal, substitute(hook)) {
            (Some(by), ..) => {
                connect_is_hooked |= hook == Hook::Connect;
                probes.taken.push((hook, by));
                continue;
            }
            (None, Some((family, cause)), _) if forced == Some(family) => (family, cause),
            (None, _, Some((by, loss))) => {
                probes.taken.push((hook, by));
                probes.losses.push((hook, loss));
                continue;
            }
            (None, refusal, None) => {
                refusal.unwrap_or((Family::Tracepoint, "no program for it".to_owned()))
            }
        };
        return Err(KernelError::Attach {
            hook,
            family,
            cause,
        });
    }
    Ok(probes)
}

/// A program that could not be attached does not stay in the kernel, nor without its twin.
fn unload(ebpf: &mut Ebpf, name: &str) {
    if let Some(twin) = twin(name) {
        unload(ebpf, twin);
    }
    // It may not have been loaded at all; then there is nothing to undo.
    let _ = match ebpf.program_mut(name) {
        Some(Program::FEntry(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::KProbe(program)) => program.unload(),
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::RawTracePoint(program)) => program.unload(),
        _ => Ok(()),
    };
}

/// State and process hooks are tracepoints whatever the family asked for: it chooses how connect,
/// close and accept are seen.
fn allowed(kind: Kind, forced: Option<Family>) -> bool {
    match (kind.family(), forced) {
        (Family::Tracepoint, _) | (_, None) => true,
        (family, Some(forced)) => family == forced,
    }
}

fn attach_with_twin(
    ebpf: &mut Ebpf,
    btf: &Btf,
    candidate: Candidate,
) -> Result<Vec<ProgramCost>, ProgramError> {
    let mut costs = vec![attach(ebpf, btf, candidate)?];
    if let Some(program) = twin(candidate.program) {
        costs.push(attach(
            ebpf,
            btf,
            Candidate {
                program,
                ..candidate
            },
        )?);
    }
    Ok(costs)
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, candidate: Candidate) -> Result<ProgramCost, ProgramError> {
    let Candidate {
        program: name,
        kind,
        target,
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
