//! A method's line numbers: `CompressedLineNumberReadStream`, oops/method.cpp.

use super::unsigned5::Unsigned5;

/// Before a pair whose steps do not fit into a byte.
const ESCAPE: u8 = 0xff;
const LINE_BITS: u32 = 3;

/// Pairs of bytecode index and line, each as a step from the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) compressed: Vec<u8>,
    /// Of [`Unsigned5`].
    pub(super) excluded: u8,
}

impl Lines {
    /// Forgets what stands behind the table. None if the table does not end as one does.
    pub(super) fn without_rest(mut self) -> Option<Self> {
        let bytes = self.walk(|_, _| {})?;
        self.compressed.truncate(bytes);
        self.compressed.shrink_to_fit();
        Some(self)
    }

    /// The line of the last pair that begins at or before `bci`, as `Method::line_number_from_bci`
    /// has it. None if the table does not end as one does.
    pub(super) fn line_at(&self, bci: u32) -> Option<u32> {
        let bci = i64::from(bci);
        let (mut best_at, mut best, mut exact) = (0, None, None);
        self.walk(|at, line| {
            if at == bci {
                exact = exact.or(Some(line));
            }
            if at < bci && at >= best_at {
                (best_at, best) = (at, Some(line));
            }
        })?;
        // The class file has lines in 16 bits.
        let line = u16::try_from(exact.or(best)?).ok()?;
        (line > 0).then_some(line.into())
    }

    /// Shows each pair, and returns how many bytes the table has.
    fn walk(&self, mut pair: impl FnMut(i64, i64)) -> Option<usize> {
        let mut stream = Unsigned5::new(&self.compressed, self.excluded);
        let (mut at, mut line) = (0_i64, 0_i64);
        loop {
            match stream.byte()? {
                0 => return Some(self.compressed.len() - stream.rest_bytes()),
                ESCAPE => {
                    at += i64::from(stream.signed()?);
                    line += i64::from(stream.signed()?);
                }
                steps => {
                    at += i64::from(steps >> LINE_BITS);
                    line += i64::from(steps & ((1 << LINE_BITS) - 1));
                }
            }
            pair(at, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(compressed: &[u8]) -> Lines {
        Lines {
            compressed: compressed.to_vec(),
            excluded: 0,
        }
    }

    /// From bytecode 0 line 12, from 10 line 13, from 40 back to line 11.
    const TABLE: &[u8] = &[ESCAPE, 0, 24, 10 << 3 | 1, ESCAPE, 60, 3, 0];

    #[test]
    fn the_line_of_the_last_pair_before_is_taken() {
        let at = |bci| lines(TABLE).line_at(bci);
        assert_eq!([0, 9, 10, 39].map(at), [12, 12, 13, 13].map(Some));
        assert_eq!([40, 65_535].map(at), [11, 11].map(Some));
    }

    #[test]
    fn of_a_table_no_more_is_kept_than_it_has_and_of_none_nothing() {
        let followed = [TABLE, &[7; 100]].concat();
        let kept = lines(&followed).without_rest().expect("a table");
        assert_eq!(kept.compressed, TABLE);
        assert_eq!(kept.compressed.capacity(), TABLE.len());
        assert_eq!(lines(&TABLE[..TABLE.len() - 1]).without_rest(), None);
    }

    #[test]
    fn a_table_without_end_has_no_lines() {
        assert_eq!(lines(&TABLE[..TABLE.len() - 1]).line_at(0), None);
        assert_eq!(lines(&[]).line_at(0), None);
        assert_eq!(lines(&[0]).line_at(0), None);
        assert_eq!(lines(&[ESCAPE, 0, 25, 0]).line_at(0), None);
    }

    proptest! {
        #[test]
        fn any_table_has_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..64), bci: u32) {
            let _ = lines(&bytes).line_at(bci);
        }
    }
}
