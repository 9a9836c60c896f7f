//! Another process's memory, read in bounds; what is there is the target's to choose.

use std::io;

/// Larger requests are a mistake of ours or a lie of the target's.
const READ_MAX_BYTES: usize = 1 << 20;
/// IOV_MAX, include/uapi/linux/uio.h.
const SEGMENTS_MAX: usize = 1024;

/// The memory of the process with this PID, whoever that is by now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pid: u32,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// Fills `buffer` from `address`, or fails.
    pub(super) fn read_into(self, address: u64, buffer: &mut [u8]) -> Option<()> {
        let wanted = buffer.len();
        let local = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: wanted,
        };
        (self.readv(&local, &[remote(address, wanted)]).ok()? == wanted).then_some(())
    }

    pub(super) fn read(self, address: u64, bytes: usize) -> Option<Vec<u8>> {
        if bytes > READ_MAX_BYTES {
            return None;
        }
        let mut buffer = vec![0; bytes];
        self.read_into(address, &mut buffer)?;
        Some(buffer)
    }

    pub(super) fn u64_at(self, address: u64) -> Option<u64> {
        let mut buffer = [0; 8];
        self.read_into(address, &mut buffer)?;
        Some(u64::from_le_bytes(buffer))
    }

    /// `bytes` from each address, in one system call where all can be read.
    pub(super) fn read_each(self, addresses: &[u64], bytes: usize) -> Vec<Option<Vec<u8>>> {
        let total = addresses.len().saturating_mul(bytes);
        if addresses.is_empty() || addresses.len() > SEGMENTS_MAX || total > READ_MAX_BYTES {
            return vec![None; addresses.len()];
        }
        let mut buffer = vec![0_u8; total];
        let local = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: total,
        };
        let segments: Vec<_> = addresses.iter().map(|at| remote(*at, bytes)).collect();
        if self
            .readv(&local, &segments)
            .is_ok_and(|read| read == total)
        {
            return buffer
                .chunks_exact(bytes)
                .map(|c| Some(c.to_vec()))
                .collect();
        }
        // One bad address ends the call; the others are read one by one.
        addresses.iter().map(|at| self.read(*at, bytes)).collect()
    }

    fn readv(self, local: &libc::iovec, remote: &[libc::iovec]) -> io::Result<usize> {
        let pid = i32::try_from(self.pid).map_err(io::Error::other)?;
        // SAFETY: `local` spans a buffer that its caller owns; the remote addresses are checked
        // by the kernel.
        let read = unsafe {
            libc::process_vm_readv(pid, local, 1, remote.as_ptr(), remote.len() as u64, 0)
        };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }
}

/// Where an object may be: other values are numbers, flags, or nothing.
pub(super) fn object_at(value: u64) -> Option<u64> {
    (value >= 4_096 && value.is_multiple_of(8)).then_some(value)
}

fn remote(address: u64, bytes: usize) -> libc::iovec {
    libc::iovec {
        iov_base: address as *mut _,
        iov_len: bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn own_memory_is_read_and_a_bad_address_spoils_no_other() {
        let memory = Memory::of(std::process::id());
        let words = [1_u64, 2];
        let at = words.as_ptr() as u64;
        let read = memory.read_each(&[at, 8, at + 8], 8);
        assert_eq!(read[0], Some(1_u64.to_le_bytes().to_vec()));
        assert_eq!(read[1], None);
        assert_eq!(read[2], Some(2_u64.to_le_bytes().to_vec()));
        assert_eq!(memory.u64_at(at + 8), Some(2));
        assert_eq!(memory.read(at, usize::MAX), None);
    }
}
