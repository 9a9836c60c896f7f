//! The archive format that Linux unpacks into its first root: cpio's "newc".

use std::io::{self, Write};

/// The file's bytes or what stands for them.
#[derive(Debug, Clone)]
pub(super) enum Node<'a> {
    Directory,
    File { bytes: &'a [u8], executable: bool },
    Symlink { target: &'a str },
    CharacterDevice { major: u32, minor: u32 },
}

pub(super) struct Writer<W: Write> {
    output: W,
    next_inode: u32,
}

const HEADER_BYTES: usize = 110;
const ALIGN_BYTES: usize = 4;

impl<W: Write> Writer<W> {
    pub(super) fn new(output: W) -> Self {
        Self {
            output,
            next_inode: 1,
        }
    }

    /// Parents must have been added before: the kernel makes no directories on its own.
    pub(super) fn add(&mut self, path: &str, node: &Node<'_>, modified_s: u32) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        let (mode, body, links, device) = match *node {
            Node::Directory => (0o040_755, &[][..], 2, (0, 0)),
            Node::File {
                bytes,
                executable: true,
            } => (0o100_755, bytes, 1, (0, 0)),
            Node::File {
                bytes,
                executable: false,
            } => (0o100_644, bytes, 1, (0, 0)),
            Node::Symlink { target } => (0o120_777, target.as_bytes(), 1, (0, 0)),
            Node::CharacterDevice { major, minor } => (0o020_600, &[][..], 1, (major, minor)),
        };
        self.entry(path, mode, links, modified_s, device, body)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.next_inode = 0;
        self.entry("TRAILER!!!", 0, 1, 0, (0, 0), &[])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        links: u32,
        modified_s: u32,
        device: (u32, u32),
        body: &[u8],
    ) -> io::Result<()> {
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, path.to_owned());
        let body_bytes = u32::try_from(body.len()).map_err(too_large)?;
        let path_bytes = u32::try_from(path.len() + 1).map_err(too_large)?;
        self.output.write_all(b"070701")?;
        let fields = [
            self.next_inode,
            mode,
            0, // owner
            0, // group
            links,
            modified_s,
            body_bytes,
            0, // the archive's device
            0,
            device.0,
            device.1,
            path_bytes,
            0, // checksum, which this variant does not have
        ];
        for field in fields {
            write!(self.output, "{field:08x}")?;
        }
        self.next_inode += 1;
        self.output.write_all(path.as_bytes())?;
        self.output.write_all(b"\0")?;
        self.pad(HEADER_BYTES + path.len() + 1)?;
        self.output.write_all(body)?;
        self.pad(body.len())
    }

    fn pad(&mut self, written_bytes: usize) -> io::Result<()> {
        let surplus = written_bytes % ALIGN_BYTES;
        if surplus == 0 {
            return Ok(());
        }
        self.output.write_all(&[0; ALIGN_BYTES][surplus..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, Node<'_>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, node) in entries {
            writer.add(path, node, 0x1234).expect("memory takes it");
        }
        writer.finish().expect("memory takes it")
    }

    fn field(archive: &[u8], at: usize, index: usize) -> u32 {
        let start = at + 6 + index * 8;
        let text = std::str::from_utf8(&archive[start..start + 8]).expect("hexadecimal");
        u32::from_str_radix(text, 16).expect("hexadecimal")
    }

    #[test]
    fn header_states_mode_size_time_and_name() {
        let archive = archive(&[(
            "/init",
            Node::File {
                bytes: b"abcde",
                executable: true,
            },
        )]);
        assert_eq!(&archive[..6], b"070701");
        assert_eq!(field(&archive, 0, 1), 0o100_755);
        assert_eq!(field(&archive, 0, 5), 0x1234);
        assert_eq!(field(&archive, 0, 6), 5);
        assert_eq!(field(&archive, 0, 11), 5);
        assert_eq!(&archive[110..115], b"init\0"[..5].as_ref());
    }

    #[test]
    fn name_and_body_end_on_four_bytes() {
        let archive = archive(&[
            (
                "init",
                Node::File {
                    bytes: b"abcde",
                    executable: false,
                },
            ),
            ("d", Node::Directory),
        ]);
        // 110 + 5 -> 116; 116 + 5 -> 124.
        assert_eq!(&archive[116..124], b"abcde\0\0\0");
        assert_eq!(&archive[124..130], b"070701");
        assert_eq!(archive.len() % 4, 0);
    }

    #[test]
    fn archive_ends_with_the_trailer() {
        let archive = archive(&[]);
        assert_eq!(&archive[110..121], b"TRAILER!!!\0");
        assert_eq!(archive.len(), 124);
    }

    #[test]
    fn devices_carry_their_numbers_and_links_their_targets() {
        let archive = archive(&[
            ("c", Node::CharacterDevice { major: 5, minor: 1 }),
            ("l", Node::Symlink { target: "usr" }),
        ]);
        assert_eq!((field(&archive, 0, 9), field(&archive, 0, 10)), (5, 1));
        assert_eq!(field(&archive, 112, 1), 0o120_777);
        assert_eq!(&archive[224..228], b"usr\0");
    }

    #[test]
    fn inodes_differ_so_that_nothing_is_taken_for_a_hard_link() {
        let archive = archive(&[("a", Node::Directory), ("b", Node::Directory)]);
        assert_ne!(field(&archive, 0, 0), field(&archive, 112, 0));
    }
}
