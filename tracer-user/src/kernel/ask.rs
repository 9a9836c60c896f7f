//! Asking: entries of maps read through a program, where the system call for it does harm.
//!
//! See `programs::ask` of the kernel side.

use std::{
    cell::Cell,
    io,
    marker::PhantomData,
    mem::transmute,
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Ebpf,
    programs::{ProgramError, ProgramFd, RawTracePoint},
};
use tracer_ebpf::abi::{
    ask::{self, ARGUMENTS, Answer},
    socket::{OpenerCounts, OpenerKey, SocketRecord},
};

use super::{
    error::{KernelError, root_cause},
    mapped::Mapped,
    maps::take_map,
    syscall::bpf,
};

/// include/uapi/linux/bpf.h, `enum bpf_cmd`
const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// `union bpf_attr`, the part for BPF_PROG_TEST_RUN up to `cpu`. raw_tp takes no `other`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    returned: u32,
    other: [u64; 4],
    context_bytes: u32,
    context_bytes_out: u32,
    context: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
}

const _: () = {
    assert!(core::mem::offset_of!(TestRun, context_bytes) == 40);
    assert!(core::mem::offset_of!(TestRun, context) == 48);
    assert!(size_of::<TestRun>() == 72);
};

const ANSWER_WORDS: usize = size_of::<Answer>() / size_of::<u64>();

pub(super) struct Asking {
    program: ProgramFd,
    answer: Mapped<ANSWER_WORDS>,
    /// One question at a time: the next one overwrites the answer.
    _not_sync: PhantomData<Cell<()>>,
}

impl Asking {
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let map = take_map(ebpf, "ANSWER")?;
        let program = load(ebpf).map_err(|error| KernelError::map("ANSWER", root_cause(&error)))?;
        Ok(Self {
            program,
            answer: Mapped::to_read(map, "ANSWER", 1)?,
            _not_sync: PhantomData,
        })
    }

    pub(super) fn socket(&self, address: u64) -> io::Result<Option<SocketRecord>> {
        let is_there = self.run([ask::SOCKET, address, 0])?;
        Ok(is_there.then(|| self.answer().tracked.record))
    }

    /// False if it was gone already, or could not be removed.
    pub(super) fn forget_socket(&self, address: u64) -> io::Result<bool> {
        self.run([ask::FORGET_SOCKET, address, 0])
    }

    pub(super) fn opener(&self, key: OpenerKey) -> io::Result<Option<OpenerCounts>> {
        let is_there = self.run([ask::OPENER, key.start_ns, u64::from(key.tgid)])?;
        Ok(is_there.then(|| self.answer().counts))
    }

    pub(super) fn forget_opener(&self, key: OpenerKey) -> io::Result<()> {
        self.run([ask::FORGET_OPENER, key.start_ns, u64::from(key.tgid)])
            .map(|_| ())
    }

    /// The kernel side writes it only while `run` waits for it, and no other thread has us.
    fn answer(&self) -> Answer {
        // SAFETY: of the same size, integers and byte arrays only: any bytes are a value.
        unsafe { transmute::<[u64; ANSWER_WORDS], Answer>(self.answer.read(0)) }
    }

    /// Was there such an entry?
    fn run(&self, arguments: [u64; ARGUMENTS]) -> io::Result<bool> {
        let mut run = TestRun {
            program: self.program.as_fd().as_raw_fd().cast_unsigned(),
            context_bytes: size_of_val(&arguments) as u32,
            context: (&raw const arguments) as u64,
            ..TestRun::default()
        };
        // SAFETY: `run` is what the command takes, and `arguments` of the size given.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut run)? };
        Ok(self.answer().is_there != 0)
    }
}

fn load(ebpf: &mut Ebpf) -> Result<ProgramFd, ProgramError> {
    let program: &mut RawTracePoint = ebpf
        .program_mut("ask")
        .ok_or(ProgramError::UnexpectedProgramType)?
        .try_into()?;
    program.load()?;
    program.fd()?.try_clone().map_err(ProgramError::IOError)
}
