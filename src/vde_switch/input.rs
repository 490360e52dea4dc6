//! What a session receives, as lines: a line may come in pieces, and several at once.

/// Octets of a line.
pub(super) const LINE_MAX: usize = 1024;

/// Octets that have come and are not yet read as lines.
#[derive(Debug, Default)]
pub(super) struct Input {
    octets: Vec<u8>,
    /// Is the rest of a line that was too long still to come?
    is_skipping: bool,
}

/// A line, or what it was too long for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its end and the blanks around it.
    Whole(String),
    /// Too long; what it said is gone.
    TooLong,
}

impl Input {
    /// Takes what has come.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// The next line that has an end.
    pub(super) fn next(&mut self) -> Option<Line> {
        loop {
            let end = self.octets.iter().position(|&octet| octet == b'\n');
            let Some(end) = end else { return self.give_up_on_long() };
            let line: Vec<u8> = self.octets.drain(..=end).collect();
            if !std::mem::take(&mut self.is_skipping) {
                return Some(read(&line));
            }
        }
    }

    /// Is there the beginning of a line?
    pub(super) fn has_rest(&self) -> bool {
        !self.octets.is_empty() || self.is_skipping
    }

    /// The last line, which has no end and gets none.
    pub(super) fn last(&mut self) -> Option<Line> {
        let rest = std::mem::take(&mut self.octets);
        let was_skipping = std::mem::take(&mut self.is_skipping);
        (!rest.is_empty() && !was_skipping).then(|| read(&rest))
    }

    /// Without an end: is it too long by now?
    fn give_up_on_long(&mut self) -> Option<Line> {
        if self.octets.len() <= LINE_MAX && !self.is_skipping {
            return None;
        }
        self.octets.clear();
        let is_news = !std::mem::replace(&mut self.is_skipping, true);
        is_news.then_some(Line::TooLong)
    }
}

fn read(line: &[u8]) -> Line {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if line.len() > LINE_MAX {
        return Line::TooLong;
    }
    Line::Whole(String::from_utf8_lossy(line).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(input: &mut Input) -> Vec<Line> {
        std::iter::from_fn(|| input.next()).collect()
    }

    fn whole(line: &str) -> Line {
        Line::Whole(line.to_owned())
    }

    #[test]
    fn pieces_are_joined_and_lines_are_split() {
        let mut input = Input::default();
        input.push(b"show");
        assert_eq!(lines(&mut input), []);
        input.push(b"info\r\n\n port/print 1 \nhel");
        assert_eq!(lines(&mut input), [whole("showinfo"), whole(""), whole("port/print 1")]);
        assert!(input.has_rest());
        assert_eq!(input.last(), Some(whole("hel")));
        assert_eq!((input.last(), input.has_rest()), (None, false));
    }

    #[test]
    fn a_line_has_a_longest_length() {
        for (length, is_good) in [(LINE_MAX, true), (LINE_MAX + 1, false)] {
            let mut input = Input::default();
            let long = "x".repeat(length);
            input.push(long.as_bytes());
            input.push(b"\nhelp\n");
            let first = if is_good { whole(&long) } else { Line::TooLong };
            assert_eq!(lines(&mut input), [first, whole("help")]);
        }
        let mut input = Input::default();
        for _ in 0..1000 {
            input.push(&[b'x'; 1024]);
            assert!(input.octets.len() <= 2 * LINE_MAX);
            lines(&mut input);
        }
        input.push(b"x\nhelp\n");
        assert_eq!(lines(&mut input), [whole("help")], "it was said once");
        input.push(&[b'x'; LINE_MAX + 1]);
        assert_eq!((lines(&mut input), input.has_rest()), (vec![Line::TooLong], true));
        assert_eq!((input.last(), input.has_rest()), (None, false));
        input.push(b"help\n");
        assert_eq!(lines(&mut input), [whole("help")], "it belongs to nothing before");
    }

    proptest! {
        #[test]
        fn how_it_is_cut_means_nothing(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let all = texts.join(&b'\n');
            let (mut at_once, mut in_pieces) = (Input::default(), Input::default());
            at_once.push(&all);
            let mut expected = lines(&mut at_once);
            expected.extend(at_once.last());
            let (mut found, mut rest, mut cuts) = (Vec::new(), &all[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let cut = (*cuts.next().unwrap()).min(rest.len());
                in_pieces.push(&rest[..cut]);
                rest = &rest[cut..];
                found.extend(lines(&mut in_pieces));
            }
            found.extend(in_pieces.last());
            prop_assert_eq!(found, expected);
        }
    }
}
